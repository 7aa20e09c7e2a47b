/** Parameters that one rank has updated, copied to the others; one parameter a node. */

import { defineOp } from '../op.ts';

/** x = x of rank `root`, a float32 parameter, as it is stored. A process on its own is rank 0 of a group of one. */
export const copyFromRank = defineOp({
  name: 'copy_from_rank',
  inputs: { x: 'vector' },
  outputs: {},
  attributes: { root: 0 },
  flops: () => 0,
});
