/**
 * The selective state-space recurrence of Mamba-2 over a sequence, with the state kept between calls.
 *
 * Heads are the first H of the parameters' full width, P = `headdim` channels each; B and C are shared by all heads
 * (one group). The state of one slot is (full heads, P, N) in float32; its first H heads are read and updated.
 * Steps from `lengths[b]` on have dt = 0: the state stands still and their y means nothing.
 */

import { MatMambaError } from '../../errors.ts';
import { type Sym } from '../../graph/graph.ts';
import { formatShape } from '../../tensor/tensor.ts';
import { chunkScanBackward } from '../chunk-scan-backward/op.ts';
import { defineOp } from '../op.ts';

/**
 * dt = clamp(softplus(dt + dtBias)); S[t] = S[t-1] * exp(-exp(aLog) * dt) + dt * x[t] (outer) b[t];
 * y[t] = S[t] c[t] + d * x[t] (Dao & Gu 2024, eq. 1 with scalar A; computed by chunks as in their section 6).
 */
export const chunkScan = defineOp({
  name: 'chunk_scan',
  inputs: {
    x: '* E',
    b: '* N',
    c: '* N',
    dt: '* H',
    dtBias: 'vector',
    aLog: 'vector',
    d: 'vector',
    state: 'state?',
    slots: 'B?',
    lengths: 'B?',
  },
  outputs: { y: '* E' },
  attributes: { batch: 1, length: 1, headdim: 1, dtMin: 0, dtMax: Infinity, dHasHdim: false },
  // What the recurrence itself takes: decay, outer product and read-out of every state element.
  flops: ({ rows, E, N }) => 5 * rows! * E! * N!,
  gradient({ inputs: { x, b, c, dt, dtBias, aLog, d }, grads: { y: dy }, attributes, into, accumulate }) {
    const parameters = { dDtBias: accumulate('dtBias'), dALog: accumulate('aLog'), dD: accumulate('d') };
    const places = { dx: into('x'), db: into('b'), dc: into('c'), ddt: into('dt') };
    const { dx, db, dc, ddt } = chunkScanBackward({ x, b, c, dt, dtBias, aLog, d, dy, ...parameters }, attributes, places);
    return { x: dx, b: db, c: dc, dt: ddt };
  },
  check: ({ x, dtBias, aLog, d, state, slots }, { batch, length, headdim, dHasHdim }, { axes }) => {
    const fail = (what: string, expected: string, got: string): never => {
      throw new MatMambaError('SHAPE', `chunk_scan: '${what}' expected ${expected}, got ${got}`);
    };
    const { E = 0, H = 0, N = 0, rows = 0 } = axes;
    if (E !== H * headdim) fail('x', `${H} heads of ${headdim}`, formatShape(x!.shape));
    if (batch * length !== rows) fail('x', `${batch} x ${length} rows`, formatShape(x!.shape));
    const atLeast = (what: string, sym: Sym | undefined, size: number): void => {
      const got = sym!.shape.reduce((a, b) => a * b, 1);
      if (got < size) fail(what, `at least ${size} elements`, formatShape(sym!.shape));
    };
    atLeast('dtBias', dtBias, H);
    atLeast('aLog', aLog, H);
    atLeast('d', d, dHasHdim ? E : H);
    if (state && (state.shape.length !== 3 || state.shape[0]! < H || state.shape[1] !== headdim || state.shape[2] !== N)) {
      fail('state', `(at least ${H}, ${headdim}, ${N})`, formatShape(state.shape));
    }
    if (axes.B !== undefined && axes.B !== batch) fail('slots', `(${batch})`, `(${axes.B})`);
    if (state && !slots) fail('slots', `(${batch}) with a state`, 'none');
  },
});
