/** The gradient of `embedding`: rows are added to the table's gradient. */

import { defineOp } from '../op.ts';

/** dWeight[ids[t]] += dy[t]; ids outside the table are passed over. ids: (*) i32, dy: (*, D), dWeight: (V, D). */
export const embeddingBackward = defineOp({
  name: 'embedding_backward',
  inputs: { ids: '*', dy: '* D', dWeight: 'matrix V D' },
  outputs: {},
  attributes: {},
  flops: ({ rows, D }) => rows! * D!,
});
