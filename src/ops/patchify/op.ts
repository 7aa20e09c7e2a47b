/** Cuts images into square patches, so that the patch embedding (a strided convolution) is a linear. */

import { MatMambaError } from '../../errors.ts';
import { formatShape } from '../../tensor/tensor.ts';
import { patchifyBackward } from '../patchify-backward/op.ts';
import { defineOp } from '../op.ts';

/** x: (B, C, H, W) -> y: (B, H/p * W/p, C*p*p), patches row by row, columns as a (C, p, p) kernel lies flat. */
export const patchify = defineOp({
  name: 'patchify',
  inputs: { x: 'B C H W' },
  outputs: {
    y: ({ axes: { B, C, H, W } }, { patchSize: p }) => ({ shape: [B!, (H! / p) * (W! / p), C! * p * p] }),
  },
  attributes: { patchSize: 16 },
  flops: () => 0,
  gradient({ inputs: { x }, grads: { y: dy }, attributes: { patchSize } }) {
    const [, channels, height, width] = x!.shape as [number, number, number, number];
    return { x: patchifyBackward({ dy }, { patchSize, channels, height, width }).dx };
  },
  check({ x }, { patchSize }, { axes: { H, W } }) {
    if (H! % patchSize === 0 && W! % patchSize === 0) return;
    throw new MatMambaError(
      'SHAPE',
      `images of ${formatShape(x!.shape)} do not divide into patches of ${patchSize} x ${patchSize}`,
    );
  },
});
