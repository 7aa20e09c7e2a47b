/** The language model's head, loss and their gradients in one op: logits and their gradients never exist at once. */

import { MatMambaError } from '../../errors.ts';
import { defineOp } from '../op.ts';

/**
 * loss as `linear_cross_entropy`; with dLogits[t] = (softmax(x[t] . weight^T) - onehot(targets[t])) * dLoss[t], 0 where
 * the target is negative: dx = dLogits . weight and dWeight += dLogits^T . x.
 * x, dx: (*, D), weight, dWeight: (V, D), targets: (*) i32, loss, dLoss: (*, 1).
 *
 * With `teacher` (*, D), the same head over it gives a distribution q = softmax(teacher[t] . weight^T) that takes the share
 * `distill` of the target (Hinton et al. 2015, at temperature 1): onehot becomes (1 - distill) onehot + distill q. No
 * gradient goes to the teacher or through it to the weight; `loss` stays that of the targets.
 */
export const linearCrossEntropyBackward = defineOp({
  name: 'linear_cross_entropy_backward',
  inputs: { x: '* D', weight: 'matrix V D', targets: '*', dLoss: '* 1', teacher: '* D?', dWeight: 'matrix V D?' },
  outputs: { loss: ({ leading }) => ({ shape: [...leading, 1] }), dx: '* D' },
  attributes: { distill: 0 },
  flops: ({ rows, D, V }) => rows! * V! * (6 * D! + 8),
  check({ targets, dLoss }) {
    if (targets!.value.dtype !== 'i32') {
      throw new MatMambaError('SHAPE', `linear_cross_entropy_backward: 'targets' expected int32, got ${targets!.value.dtype}`);
    }
    if (dLoss!.width !== 1)
      throw new MatMambaError('SHAPE', `linear_cross_entropy_backward: 'dLoss' expected one column, got ${dLoss!.width}`);
  },
});
