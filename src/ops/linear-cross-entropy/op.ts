/** The language model's head and loss in one op, so that the logits of all tokens never exist at once. */

import { MatMambaError } from '../../errors.ts';
import { linearCrossEntropyBackward } from '../linear-cross-entropy-backward/op.ts';
import { defineOp } from '../op.ts';

/**
 * loss[t] = log(sum over v of exp(x[t] . weight[v])) - x[t] . weight[targets[t]]; 0 where the target is negative.
 * x: (*, D), weight: (V, D), targets: (*) i32, loss: (*, 1).
 */
export const linearCrossEntropy = defineOp({
  name: 'linear_cross_entropy',
  inputs: { x: '* D', weight: 'matrix V D', targets: '*' },
  outputs: { loss: ({ leading }) => ({ shape: [...leading, 1] }) },
  attributes: {},
  flops: ({ rows, D, V }) => rows! * V! * (2 * D! + 4),
  gradient({ inputs: { x, weight, targets }, grads: { loss: dLoss }, into, accumulate }) {
    return {
      x: linearCrossEntropyBackward({ x, weight, targets, dLoss, dWeight: accumulate('weight') }, {}, { dx: into('x') }).dx,
    };
  },
  check({ targets }) {
    if (targets!.value.dtype === 'i32') return;
    throw new MatMambaError('SHAPE', `linear_cross_entropy: 'targets' expected int32, got ${targets!.value.dtype}`);
  },
});
