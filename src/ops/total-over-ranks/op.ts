/** A number that every rank has a part of. */

import { defineOp } from '../op.ts';

/** y = sum of the ranks' x. Both (1). A process on its own is a group of one. */
export const totalOverRanks = defineOp({
  name: 'total_over_ranks',
  inputs: { x: 'I' },
  outputs: { y: () => ({ shape: [1] }) },
  attributes: {},
  flops: () => 0,
});
