/** x (B, C, H, W) to y (B, H/p * W/p, C*p*p). */

import type { WebGpuKernel } from '../webgpu-kernel.ts';
import { patchifyDispatch } from './webgpu-source.ts';

export const patchifyWebGpu: WebGpuKernel = {
  dispatches: (node) => [patchifyDispatch(node, node.buffer('x'), node.number('patchSize'), false)],
};
