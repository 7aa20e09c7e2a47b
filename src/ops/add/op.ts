/** The sum of two values, where a gradient has two sources. */

import { defineOp } from '../op.ts';

/** y = a + b. All (*, D). */
export const add = defineOp({
  name: 'add',
  inputs: { a: '* D', b: '* D' },
  outputs: { y: '* D' },
  attributes: {},
  flops: ({ rows, D }) => rows! * D!,
  inPlace: { y: 'a' },
  gradient: ({ grads: { y } }) => ({ a: y, b: y }),
});
