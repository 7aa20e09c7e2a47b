/** Float64 loops of the recurrence's gradient: the states forward, then their adjoint one step back at a time. */

import type { HostValue, Reference } from '../cases.ts';
import { accumulated } from '../norm-backward/reference.ts';

export const chunkScanBackwardReference: Reference = (operands, attributes): Record<string, HostValue> => {
  type Operands = Record<'x' | 'b' | 'c' | 'dt' | 'dtBias' | 'aLog' | 'd' | 'dy', HostValue> &
    Record<'dDtBias' | 'dALog' | 'dD', HostValue | undefined>;
  const { x, b, c, dt, dtBias, aLog, d, dy, dDtBias, dALog, dD } = operands as Operands;
  const {
    batch,
    length,
    headdim: P,
    dtMin,
    dtMax,
    dHasHdim,
  } = attributes as Record<'batch' | 'length' | 'headdim' | 'dtMin' | 'dtMax', number> & {
    dHasHdim: boolean;
  };
  const E = x.shape.at(-1)!;
  const N = b.shape.at(-1)!;
  const H = dt.shape.at(-1)!;
  const [dx, db, dc, ddt] = [x, b, c, dt].map(({ data }) => new Float64Array(data.length)) as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const [biasChange, aLogChange, skipChange] = [new Float64Array(H), new Float64Array(H), new Float64Array(dHasHdim ? E : H)];
  for (let row = 0; row < batch; row++) {
    for (let h = 0; h < H; h++) {
      const A = -Math.exp(aLog.data[h]!);
      // S before every step, and what it is multiplied by.
      const states = new Float64Array((length + 1) * P * N);
      const decays = new Float64Array(length + 1);
      const steps = new Float64Array(length);
      const slopes = new Float64Array(length);
      for (let t = 0; t < length; t++) {
        const at = row * length + t;
        const raw = dt.data[at * H + h]! + dtBias.data[h]!;
        const soft = raw > 20 ? raw : Math.log1p(Math.exp(raw));
        steps[t] = Math.min(Math.max(soft, dtMin), dtMax);
        slopes[t] = soft < dtMin || soft > dtMax ? 0 : raw > 20 ? 1 : 1 / (1 + Math.exp(-raw));
        decays[t] = Math.exp(A * steps[t]!);
        for (let p = 0; p < P; p++) {
          const u = steps[t]! * x.data[at * E + h * P + p]!;
          for (let n = 0; n < N; n++) {
            states[((t + 1) * P + p) * N + n] = states[(t * P + p) * N + n]! * decays[t]! + u * b.data[at * N + n]!;
          }
        }
      }
      const G = new Float64Array(P * N);
      for (let t = length - 1; t >= 0; t--) {
        const at = row * length + t;
        let inputs = 0;
        let decayed = 0;
        for (let p = 0; p < P; p++) {
          const channel = h * P + p;
          const input = x.data[at * E + channel]!;
          const output = dy.data[at * E + channel]!;
          let sum = 0;
          for (let n = 0; n < N; n++) {
            const i = p * N + n;
            G[i] = G[i]! * decays[t + 1]! + output * c.data[at * N + n]!;
            sum += G[i] * b.data[at * N + n]!;
            decayed += G[i] * states[t * P * N + i]! * decays[t]!;
            db[at * N + n]! += steps[t]! * input * G[i];
            dc[at * N + n]! += states[(t + 1) * P * N + i]! * output;
          }
          inputs += input * sum;
          const skip = dHasHdim ? channel : h;
          dx[at * E + channel] = d.data[skip]! * output + steps[t]! * sum;
          skipChange[skip]! += output * input;
        }
        // A may be infinite where nothing is left of the state.
        const change = (inputs + (decayed === 0 ? 0 : A * decayed)) * slopes[t]!;
        ddt[at * H + h] = change;
        biasChange[h]! += change;
        aLogChange[h]! += decayed === 0 ? 0 : A * steps[t]! * decayed;
      }
    }
  }
  const results: Record<string, HostValue> = {
    dx: { shape: x.shape, data: dx },
    db: { shape: b.shape, data: db },
    dc: { shape: c.shape, data: dc },
    ddt: { shape: dt.shape, data: ddt },
  };
  if (dDtBias) results['dDtBias'] = accumulated(dDtBias, biasChange)!;
  if (dALog) results['dALog'] = accumulated(dALog, aLogChange)!;
  if (dD) results['dD'] = accumulated(dD, skipChange)!;
  return results;
};
