/** Copies the last `count` real rows of each sequence of T x D; rows before the first are clamped to it. */

import type { WebGpuKernel } from '../webgpu-kernel.ts';
import { rowVectors } from '../webgpu-rows.ts';
import { lengthsConstants, LENGTHS_SOURCE } from './webgpu-source.ts';

const BODY = `
  let sequence = row / c.picks;
  let picked = max(0, length_of(sequence) - i32(c.picks) + i32(row % c.picks));
  let value = arena[at(c.x, c.xStride, sequence * c.length + u32(picked), column)];
  arena[at(c.y, c.yStride, row, column)] = masked(value, column, c.width);`;

export const lastRowsWebGpu: WebGpuKernel = {
  dispatches(node) {
    return [
      rowVectors({
        entry: 'last_rows',
        node,
        operands: ['x', 'y'],
        y: node.buffer('y'),
        source: LENGTHS_SOURCE,
        body: BODY,
        constants: lengthsConstants(node, node.buffer('x').shape[1]!, node.number('count')),
      }),
    ];
  },
};
