/** y (B, L+1, D): the patches x (B, L, D) and behind them the class token, plus the positions. D is a multiple of 32. */

import { type WebGpuKernel, reads } from '../webgpu-kernel.ts';
import { rowVectors } from '../webgpu-rows.ts';

/** position: (L+1) x D and class_token: D floats, contiguous; tokens = L + 1. */
const BODY = `
  let image = row / c.tokens;
  let token = row % c.tokens;
  var value: vec4<f32>;
  if (token == c.tokens - 1u) {
    value = class_token[column / 4u];
  } else {
    value = arena[at(c.x, c.xStride, image * (c.tokens - 1u) + token, column)];
  }
  arena[at(c.y, c.yStride, row, column)] = value + position[(token * c.width + column) / 4u];`;

export const visionTokensWebGpu: WebGpuKernel = {
  dispatches(node) {
    const y = node.buffer('y');
    const vector = (name: string, operand: string) => reads(name, node.weight(operand).values, 'vec4<f32>');
    return [
      rowVectors({
        entry: 'vision_tokens',
        node,
        operands: ['x', 'y'],
        y,
        body: BODY,
        bindings: [vector('class_token', 'classToken'), vector('position', 'position')],
        constants: { tokens: y.shape[1]! },
      }),
    ];
  },
};
