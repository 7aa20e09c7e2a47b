/** The gradient of `last_rows`. */

import { defineOp } from '../op.ts';

/** dy: (B, count, D) -> dx: (B, length, D), zero but for the rows that were picked. lengths: (B) i32. */
export const lastRowsBackward = defineOp({
  name: 'last_rows_backward',
  inputs: { dy: 'B C D', lengths: 'B?' },
  outputs: { dx: ({ axes: { B, D } }, { length }) => ({ shape: [B!, length, D!] }) },
  attributes: { length: 1 },
  flops: () => 0,
});
