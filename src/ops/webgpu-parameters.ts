/** What WebGPU kernels over whole float32 parameter buffers share. */

import { sizeOf } from '../tensor/tensor.ts';
import type { WebGpuWeight, WeightPart } from './webgpu-kernel.ts';

/** Floats of a part of a float32 parameter as it is stored, padding of rows included. */
export function partFloats({ layout, shape, stride }: WebGpuWeight, { rows }: WeightPart): number {
  return layout === 'matrix' ? rows * stride : sizeOf(shape);
}
