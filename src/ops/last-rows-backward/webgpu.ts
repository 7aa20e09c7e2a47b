/** dx (B, length, D): the rows of dy (B, count, D) where `last_rows` picked them, zeros elsewhere. */

import { lengthsConstants, LENGTHS_SOURCE } from '../last-rows/webgpu-source.ts';
import type { WebGpuKernel } from '../webgpu-kernel.ts';
import { rowVectors } from '../webgpu-rows.ts';

const BODY = `
  let sequence = row / c.length;
  let picked = i32(row % c.length) - length_of(sequence) + i32(c.picks);
  var value = vec4<f32>();
  if (picked >= 0 && picked < i32(c.picks)) {
    value = arena[at(c.dy, c.dyStride, sequence * c.picks + u32(picked), column)];
  }
  arena[at(c.dx, c.dxStride, row, column)] = masked(value, column, c.width);`;

export const lastRowsBackwardWebGpu: WebGpuKernel = {
  dispatches(node) {
    const dx = node.buffer('dx');
    return [
      rowVectors({
        entry: 'last_rows_backward',
        node,
        operands: ['dy', 'dx'],
        y: dx,
        source: LENGTHS_SOURCE,
        body: BODY,
        constants: lengthsConstants(node, dx.shape[1]!, node.buffer('dy').shape[1]!),
      }),
    ];
  },
};
