/** y = a + b, rows x width; y may be a. */

import type { WebGpuKernel } from '../webgpu-kernel.ts';
import { rowVectors } from '../webgpu-rows.ts';

const BODY = `
  let sum = arena[at(c.a, c.aStride, row, column)] + arena[at(c.b, c.bStride, row, column)];
  arena[at(c.y, c.yStride, row, column)] = masked(sum, column, c.width);`;

export const addWebGpu: WebGpuKernel = {
  dispatches(node) {
    return [rowVectors({ entry: 'add', node, operands: ['a', 'b', 'y'], y: node.buffer('y'), body: BODY })];
  },
};
