/** The gradient of `vision_tokens`. */

import { defineOp } from '../op.ts';

/** dx = dy[:, :L]; dClass += sum over the batch of dy[:, L]; dPosition += sum over the batch of dy. dy: (B, L+1, D). */
export const visionTokensBackward = defineOp({
  name: 'vision_tokens_backward',
  inputs: { dy: 'B T D', dClass: 'vector?', dPosition: 'vector?' },
  outputs: { dx: ({ axes: { B, T, D } }) => ({ shape: [B!, T! - 1, D!] }) },
  attributes: {},
  flops: ({ B, T, D }) => B! * T! * D!,
});
