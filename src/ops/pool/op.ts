/** The vision model's pooling: the class token, which is last, or the mean of the others. */

import { poolBackward } from '../pool-backward/op.ts';
import { defineOp } from '../op.ts';

/** x: (B, T, D) -> y: (B, D): x[:, T-1], or with `average` the mean of x[:, :T-1]. */
export const pool = defineOp({
  name: 'pool',
  inputs: { x: 'B T D' },
  outputs: { y: 'B D' },
  attributes: { average: false },
  flops: ({ B, T, D }, { average }) => (average ? B! * T! * D! : 0),
  gradient({ inputs: { x }, grads: { y: dy }, attributes: { average } }) {
    return { x: poolBackward({ dy }, { length: x!.shape[1]!, average }).dx };
  },
});
