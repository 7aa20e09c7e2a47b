/** The residual addition fused with the norm that follows it. */

import { normBackward } from '../norm-backward/op.ts';
import { defineOp } from '../op.ts';

/** sum = x + residual (float32 stream); y = norm(sum), as in `norm`. All (*, D). */
export const addNorm = defineOp({
  name: 'add_norm',
  inputs: { x: '* D', residual: '* D', weight: 'vector', bias: 'vector?' },
  outputs: { y: '* D', sum: '* D' },
  attributes: { eps: 1e-5, center: false },
  flops: ({ rows, D }) => 5 * rows! * D!,
  inPlace: { sum: 'residual' },
  gradient({ inputs: { weight }, outputs: { sum: x }, grads: { y: dy, sum: dSum }, attributes, accumulate }) {
    if (!dy) return { x: dSum, residual: dSum };
    const { dx } = normBackward({ x, weight, dy, dSum, dWeight: accumulate('weight'), dBias: accumulate('bias') }, attributes);
    return { x: dx, residual: dx };
  },
});
