/** Table look-up: token ids to rows. */

import { MatMambaError } from '../../errors.ts';
import { formatShape } from '../../tensor/tensor.ts';
import { deriveAttributes } from '../linear/op.ts';
import { defineOp } from '../op.ts';

/** y[t] = weight[ids[t]]; an id outside the table gives a row of zeros. ids: (*) i32, weight: (V, D), y: (*, D). */
export const embedding = deriveAttributes(
  defineOp({
    name: 'embedding',
    inputs: { ids: '*', weight: 'matrix' },
    outputs: { y: ({ leading }, { width }) => ({ shape: [...leading, width] }) },
    /** Follows from `weight`. */
    attributes: { width: 0 },
    flops: () => 0,
    check({ ids, weight }) {
      if (ids!.value.dtype !== 'i32') throw new MatMambaError('SHAPE', `embedding: 'ids' expected int32, got ${ids!.value.dtype}`);
      if (weight!.shape.length !== 2) throw new MatMambaError('SHAPE', `embedding: 'weight' expected (V, D), got ${formatShape(weight!.shape)}`);
    },
  }),
  ({ weight }) => ({ width: weight?.shape[1] ?? 0 }),
);
