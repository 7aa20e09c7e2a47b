/** Cross-entropy with soft targets (label smoothing, mixup, cutmix), and its gradient in the same pass. */

import { defineOp } from '../op.ts';

/**
 * loss = sum over v of targets * (log sum exp(logits) - logits); dLogits = (softmax * sum(targets) - targets) * scale.
 * logits, targets, dLogits: (*, V), scale, loss: (*, 1); scale is the loss's own gradient.
 */
export const softCrossEntropy = defineOp({
  name: 'soft_cross_entropy',
  inputs: { logits: '* V', targets: '* V', scale: '* I' },
  outputs: { loss: ({ leading }) => ({ shape: [...leading, 1] }), dLogits: '* V' },
  attributes: {},
  flops: ({ rows, V }) => 8 * rows! * V!,
});
