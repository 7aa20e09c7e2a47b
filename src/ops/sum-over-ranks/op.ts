/** Gradient buffers summed over the ranks of a job, one parameter a node. */

import { defineOp } from '../op.ts';

/**
 * x = sum of the ranks' x. With a `root`, only that rank gets the sum; on the others x becomes zero. Consecutive nodes of
 * one `bucket` are summed together, while what follows them runs, up to the first node that uses x. x: a
 * parameter-shaped float32 buffer, summed as it is stored, padding included. A process on its own is a group of one.
 */
export const sumOverRanks = defineOp({
  name: 'sum_over_ranks',
  inputs: { x: 'vector' },
  outputs: {},
  attributes: { bucket: 0, root: -1 },
  flops: () => 0,
});
