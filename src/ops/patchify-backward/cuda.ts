/** dy (B, L, C*p*p) to dx (B, C, H, W). */

import type { CudaKernel } from '../cuda-kernel.ts';
import { patchifyLaunch } from '../patchify/cuda-source.ts';

export const patchifyBackwardCuda: CudaKernel = {
  launches: (node) => [patchifyLaunch(node.buffer('dx'), node.buffer('dy'), node.number('patchSize'), true)],
};
