/** The gradient of `linear` with respect to its input on WebGPU. */

import { inputProduct } from '../linear/webgpu-products.ts';
import type { WebGpuKernel } from '../webgpu-kernel.ts';

export const linearInputBackwardWebGpu: WebGpuKernel = {
  dispatches: (node) => inputProduct(node.buffer('dy'), node.weight('weight'), node.segments('segments'), node.buffer('dx')),
};
