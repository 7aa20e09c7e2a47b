/** The gradient dy (B, L+1, D) of tokens: dx (B, L, D) takes the patches, class token and positions the batch's sums. */

import { type WebGpuBinding, type WebGpuKernel, arena, fold, rowConstants, writes } from '../webgpu-kernel.ts';
import { INVOCATION, ROWS_SOURCE } from '../webgpu-rows.ts';

/** Few enough that a small batch's tokens give every processor of a GPU some. */
const LANES = 64;

/**
 * An invocation takes 4 columns of one token through the batch, in its order: it copies to dx and sums. tokens = L + 1;
 * dClass, dPosition: contiguous floats, absent where not trained.
 */
function source(dClass: boolean, dPosition: boolean): string {
  return `
@compute @workgroup_size(${LANES})
fn vision_tokens_backward(${INVOCATION}) {
  let item = folded(wid, count) * ${LANES}u + lane;
  let token = item / c.vectors;
  if (token >= c.tokens) { return; }
  let column = 4u * (item % c.vectors);
  let last = token == c.tokens - 1u;
  var sum = vec4<f32>();
  for (var image = 0u; image < c.batch; image++) {
    let value = arena[at(c.dy, c.dyStride, image * c.tokens + token, column)];
    sum += value;
    if (!last) { arena[at(c.dx, c.dxStride, image * (c.tokens - 1u) + token, column)] = value; }
  }
  ${dPosition ? 'dPosition[item] += sum;' : ''}
  ${dClass ? 'if (last) { dClass[column / 4u] += sum; }' : ''}
}
`;
}

export const visionTokensBackwardWebGpu: WebGpuKernel = {
  dispatches(node) {
    const [batch, tokens, width] = node.buffer('dy').shape as [number, number, number];
    const vectors = width / 4;
    const bindings: WebGpuBinding[] = ['dClass', 'dPosition']
      .filter((name) => node.has(name))
      .map((name) => writes(name, node.weight(name).values, 'vec4<f32>'));
    return [
      {
        kind: 'dispatch',
        source: ROWS_SOURCE + source(node.has('dClass'), node.has('dPosition')),
        entry: 'vision_tokens_backward',
        workgroups: fold(Math.ceil((tokens * vectors) / LANES)),
        bindings: [arena('vec4<f32>'), ...bindings],
        constants: { ...rowConstants(node, 'dy', 'dx'), batch, tokens, vectors },
      },
    ];
  },
};
