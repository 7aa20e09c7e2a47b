/** The language model's head and loss in one op, so that the logits of all tokens never exist at once. */

import { MatMambaError } from '../../errors.ts';
import { formatShape } from '../../tensor/tensor.ts';
import { deriveAttributes } from '../linear/op.ts';
import { defineOp } from '../op.ts';

/**
 * loss[t] = log(sum over v of exp(x[t] . weight[v])) - x[t] . weight[targets[t]]; 0 where the target is negative.
 * x: (*, D), weight: (V, >= D), targets: (*) i32, loss: (*, 1).
 */
export const linearCrossEntropy = deriveAttributes(
  defineOp({
    name: 'linear_cross_entropy',
    inputs: { x: '* D', weight: 'matrix', targets: '*' },
    outputs: { loss: ({ leading }) => ({ shape: [...leading, 1] }) },
    /** Follows from `weight`. */
    attributes: { vocabulary: 0 },
    flops: ({ rows, D }, { vocabulary }) => rows! * vocabulary * (2 * D! + 4),
    check({ weight, targets }, _, { axes: { D } }) {
      if (targets!.value.dtype !== 'i32') {
        throw new MatMambaError('SHAPE', `linear_cross_entropy: 'targets' expected int32, got ${targets!.value.dtype}`);
      }
      const { shape } = weight!;
      if (shape.length === 2 && shape[1]! >= D!) return;
      throw new MatMambaError('SHAPE', `linear_cross_entropy: 'weight' expected (V, at least ${D}), got ${formatShape(shape)}`);
    },
  }),
  ({ weight }) => ({ vocabulary: weight?.shape[0] ?? 0 }),
);
