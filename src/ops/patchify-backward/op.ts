/** The gradient of `patchify`: patches put back into images. */

import { defineOp } from '../op.ts';

/** dy: (B, L, C*p*p) -> dx: (B, C, H, W). */
export const patchifyBackward = defineOp({
  name: 'patchify_backward',
  inputs: { dy: 'B L K' },
  outputs: { dx: ({ axes: { B } }, { channels, height, width }) => ({ shape: [B!, channels, height, width] }) },
  attributes: { patchSize: 16, channels: 3, height: 16, width: 16 },
  flops: () => 0,
});
