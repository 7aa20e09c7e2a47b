/** dy (B, L, C*p*p) to dx (B, C, H, W). */

import { patchifyDispatch } from '../patchify/webgpu-source.ts';
import type { WebGpuKernel } from '../webgpu-kernel.ts';

export const patchifyBackwardWebGpu: WebGpuKernel = {
  dispatches: (node) => [patchifyDispatch(node, node.buffer('dx'), node.number('patchSize'), true)],
};
