/** WebGPU kernel of the gate: an invocation for 4 columns of a row. */

import type { WebGpuKernel } from '../webgpu-kernel.ts';
import { rowVectors } from '../webgpu-rows.ts';
import { SIGMOID_SOURCE } from '../webgpu-sums.ts';

/** y = x silu(z); all (rows, width), y may lie where x does. */
const BODY = `
  let z = arena[at(c.z, c.zStride, row, column)];
  let y = arena[at(c.x, c.xStride, row, column)] * (z * sigmoid(z));
  arena[at(c.y, c.yStride, row, column)] = masked(y, column, c.width);`;

export const gatedSiluWebGpu: WebGpuKernel = {
  dispatches: (node) => [
    rowVectors({ entry: 'gated_silu', node, operands: ['x', 'z', 'y'], y: node.buffer('y'), body: BODY, source: SIGMOID_SOURCE }),
  ],
};
