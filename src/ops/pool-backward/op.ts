/** The gradient of `pool`. */

import { defineOp } from '../op.ts';

/** dy: (B, D) -> dx: (B, length, D): to the last token, or with `average` an equal share to each of the others. */
export const poolBackward = defineOp({
  name: 'pool_backward',
  inputs: { dy: 'B D' },
  outputs: { dx: ({ axes: { B, D } }, { length }) => ({ shape: [B!, length, D!] }) },
  attributes: { length: 1, average: false },
  flops: ({ B, D }, { length }) => B! * D! * length,
});
