/** x (B, C, H, W) to y (B, H/p * W/p, C*p*p). */

import type { CudaKernel } from '../cuda-kernel.ts';
import { patchifyLaunch } from './cuda-source.ts';

export const patchifyCuda: CudaKernel = {
  launches: (node) => [patchifyLaunch(node.buffer('x'), node.buffer('y'), node.number('patchSize'), false)],
};
