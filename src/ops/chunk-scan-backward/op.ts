/**
 * The gradient of `chunk_scan` without a carried state: sequences start from zero and all steps are real.
 *
 * ddt is the gradient of the raw dt, through softplus and the clamp: zero outside the limits, as PyTorch's clamp.
 * Parameter gradients are added to; heads (channels for `dHasHdim`) are the first of the parameters' full width.
 */

import { MatMambaError } from '../../errors.ts';
import { formatShape } from '../../tensor/tensor.ts';
import { defineOp } from '../op.ts';

/**
 * With S as in `chunk_scan` and its adjoint G[t] = exp(A * dt[t + 1]) * G[t + 1] + dy[t] (outer) c[t], A = -exp(aLog):
 * dx[t] = d * dy[t] + dt[t] * G[t] b[t]; db[t] = sum over heads of dt[t] * G[t]' x[t]; dc[t] = sum of S[t]' dy[t];
 * the gradient of dt[t] is x[t]' G[t] b[t] + A * D[t], that of A sums dt[t] * D[t], D[t] = exp(A * dt[t]) * <G[t], S[t - 1]>.
 */
export const chunkScanBackward = defineOp({
  name: 'chunk_scan_backward',
  inputs: {
    x: '* E',
    b: '* N',
    c: '* N',
    dt: '* H',
    dtBias: 'vector',
    aLog: 'vector',
    d: 'vector',
    dy: '* E',
    dDtBias: 'vector?',
    dALog: 'vector?',
    dD: 'vector?',
  },
  outputs: { dx: '* E', db: '* N', dc: '* N', ddt: '* H' },
  attributes: { batch: 1, length: 1, headdim: 1, dtMin: 0, dtMax: Infinity, dHasHdim: false },
  // What the recurrence itself takes for every state element: S and G (3 each), D, dx, db and dc (2 each).
  flops: ({ rows, E, N }) => 14 * rows! * E! * N!,
  check: ({ x, dDtBias, dALog, dD }, { batch, length, headdim, dHasHdim }, { axes }) => {
    const fail = (what: string, expected: string, got: string): never => {
      throw new MatMambaError('SHAPE', `chunk_scan_backward: '${what}' expected ${expected}, got ${got}`);
    };
    const { E = 0, H = 0, rows = 0 } = axes;
    if (E !== H * headdim) fail('x', `${H} heads of ${headdim}`, formatShape(x!.shape));
    if (batch * length !== rows) fail('x', `${batch} x ${length} rows`, formatShape(x!.shape));
    for (const [what, sym, size] of [
      ['dDtBias', dDtBias, H],
      ['dALog', dALog, H],
      ['dD', dD, dHasHdim ? E : H],
    ] as const) {
      if (sym && sym.shape.reduce((a, b) => a * b, 1) < size) fail(what, `at least ${size} elements`, formatShape(sym.shape));
    }
  },
});
