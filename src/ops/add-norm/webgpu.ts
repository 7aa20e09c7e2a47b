/** WebGPU dispatch of the residual addition with the norm, in the kernel of `norm`. */

import { normDispatches } from '../norm/webgpu.ts';
import type { WebGpuKernel } from '../webgpu-kernel.ts';

export const addNormWebGpu: WebGpuKernel = { dispatches: normDispatches };
