/** The residual addition fused with the norm that follows it. */

import { defineOp } from '../op.ts';

/** sum = x + residual (float32 stream); y = norm(sum), as in `norm`. All (*, D). */
export const addNorm = defineOp({
  name: 'add_norm',
  inputs: { x: '* D', residual: '* D', weight: 'vector', bias: 'vector?' },
  outputs: { y: '* D', sum: '* D' },
  attributes: { eps: 1e-5, center: false },
  flops: ({ rows, D }) => 5 * rows! * D!,
  inPlace: { sum: 'residual' },
});
