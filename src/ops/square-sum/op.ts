/** Sums of squares of gradient buffers, chained so that one number covers all of them. */

import { defineOp } from '../op.ts';

/** y = before + sum of x^2. x: a parameter-shaped buffer, before and y: (1). */
export const squareSum = defineOp({
  name: 'square_sum',
  inputs: { x: 'vector', before: 'I?' },
  outputs: { y: () => ({ shape: [1] }) },
  attributes: {},
  flops: () => 0,
});
