/** WebGPU kernel of the gate's gradient: an invocation for 4 columns of a row. */

import type { WebGpuKernel } from '../webgpu-kernel.ts';
import { rowVectors } from '../webgpu-rows.ts';
import { SIGMOID_SOURCE } from '../webgpu-sums.ts';

/** dx = dy silu(z), dz = dy x silu'(z); all (rows, width). */
const BODY = `
  let z = arena[at(c.z, c.zStride, row, column)];
  let x = arena[at(c.x, c.xStride, row, column)];
  let dy = arena[at(c.dy, c.dyStride, row, column)];
  let s = sigmoid(z);
  arena[at(c.dx, c.dxStride, row, column)] = masked(dy * z * s, column, c.width);
  arena[at(c.dz, c.dzStride, row, column)] = masked(dy * x * s * (1.0 + z * (1.0 - s)), column, c.width);`;

export const gatedSiluBackwardWebGpu: WebGpuKernel = {
  dispatches: (node) => [
    rowVectors({
      entry: 'gated_silu_backward',
      node,
      operands: ['x', 'z', 'dy', 'dx', 'dz'],
      y: node.buffer('dx'),
      body: BODY,
      source: SIGMOID_SOURCE,
    }),
  ],
};
