/**
 * Float64 loops of the state-space recurrence, one step at a time.
 *
 * The state operand holds all slots, (slots, full heads, P, N). y of the steps from `lengths[b]` on is zero.
 */

import type { HostValue, Reference } from '../cases.ts';

export const chunkScanReference: Reference = (operands, attributes): Record<string, HostValue> => {
  type Operands = Record<'x' | 'b' | 'c' | 'dt' | 'dtBias' | 'aLog' | 'd', HostValue> &
    Record<'state' | 'slots' | 'lengths', HostValue | undefined>;
  const { x, b, c, dt, dtBias, aLog, d, state, slots, lengths } = operands as Operands;
  const { batch, length, headdim: P, dtMin, dtMax, dHasHdim } = attributes as Record<string, number>;
  const E = x.shape.at(-1)!;
  const N = b.shape.at(-1)!;
  const H = dt.shape.at(-1)!;
  const slotSize = state ? state.shape.slice(1).reduce((a, s) => a * s, 1) : 0;
  const states = state?.data.slice();
  const y = new Float64Array(x.data.length);
  for (let row = 0; row < batch!; row++) {
    const real = lengths ? lengths.data[row]! : length!;
    const slot = slots ? slots.data[row]! : row;
    const S = states ? states.subarray(slot * slotSize, slot * slotSize + H * P! * N) : new Float64Array(H * P! * N);
    for (let t = 0; t < real; t++) {
      const at = row * length! + t;
      for (let h = 0; h < H; h++) {
        const raw = dt.data[at * H + h]! + dtBias.data[h]!;
        const soft = raw > 20 ? raw : Math.log1p(Math.exp(raw));
        const step = Math.min(Math.max(soft, dtMin ?? 0), dtMax ?? Infinity);
        const decay = Math.exp(-Math.exp(aLog.data[h]!) * step);
        for (let p = 0; p < P!; p++) {
          const channel = h * P! + p;
          const input = x.data[at * E + channel]!;
          let sum = d.data[dHasHdim ? channel : h]! * input;
          for (let n = 0; n < N; n++) {
            const i = channel * N + n;
            S[i] = S[i]! * decay + step * input * b.data[at * N + n]!;
            sum += S[i] * c.data[at * N + n]!;
          }
          y[at * E + channel] = sum;
        }
      }
    }
  }
  return { y: { shape: x.shape, data: y }, ...(state && states ? { state: { shape: state.shape, data: states } } : {}) };
};
