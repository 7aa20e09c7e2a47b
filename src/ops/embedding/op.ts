/** Table look-up: token ids to rows. */

import { MatMambaError } from '../../errors.ts';
import { embeddingBackward } from '../embedding-backward/op.ts';
import { defineOp } from '../op.ts';

/** y[t] = weight[ids[t]]; an id outside the table gives a row of zeros. ids: (*) i32, weight: (V, D), y: (*, D). */
export const embedding = defineOp({
  name: 'embedding',
  inputs: { ids: '*', weight: 'matrix V D' },
  outputs: { y: '* D' },
  attributes: {},
  flops: () => 0,
  gradient({ inputs: { ids }, grads: { y: dy }, accumulate }) {
    const dWeight = accumulate('weight');
    if (dWeight) embeddingBackward({ ids, dy, dWeight });
    return {};
  },
  check({ ids }) {
    if (ids!.value.dtype !== 'i32') throw new MatMambaError('SHAPE', `embedding: 'ids' expected int32, got ${ids!.value.dtype}`);
  },
});
