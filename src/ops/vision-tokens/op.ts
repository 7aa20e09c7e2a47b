/** Appends the class token after the patches and adds the position embedding. */

import { visionTokensBackward } from '../vision-tokens-backward/op.ts';
import { defineOp } from '../op.ts';

/** x: (B, L, D), classToken: (1, 1, D), position: (1, L+1, D) -> y: (B, L+1, D). */
export const visionTokens = defineOp({
  name: 'vision_tokens',
  inputs: { x: 'B L D', classToken: 'vector', position: 'vector' },
  outputs: { y: ({ axes: { B, L, D } }) => ({ shape: [B!, L! + 1, D!] }) },
  attributes: {},
  flops: ({ B, L, D }) => B! * (L! + 1) * D!,
  gradient({ grads: { y: dy }, accumulate }) {
    return { x: visionTokensBackward({ dy, dClass: accumulate('classToken'), dPosition: accumulate('position') }).dx };
  },
});
