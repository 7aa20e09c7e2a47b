/** dx (B, T, D) from dy (B, D): all of it to the last token, or an equal share to each of the others. */

import { type WebGpuKernel, f32 } from '../webgpu-kernel.ts';
import { rowVectors } from '../webgpu-rows.ts';

const BODY = `
  let last = row % c.tokens == c.tokens - 1u;
  var value = vec4<f32>();
  if (last != (c.average != 0u)) { value = c.share * arena[at(c.dy, c.dyStride, row / c.tokens, column)]; }
  arena[at(c.dx, c.dxStride, row, column)] = masked(value, column, c.width);`;

export const poolBackwardWebGpu: WebGpuKernel = {
  dispatches(node) {
    const dx = node.buffer('dx');
    const tokens = dx.shape[1]!;
    const average = node.flag('average');
    return [
      rowVectors({
        entry: 'pool_backward',
        node,
        operands: ['dy', 'dx'],
        y: dx,
        body: BODY,
        constants: { tokens, average: average ? 1 : 0, share: f32(average ? 1 / (tokens - 1) : 1) },
      }),
    ];
  },
};
