/** Dropout of elements, rows x width; y may be x. An invocation draws the numbers of its 4 columns. */

import type { WebGpuKernel } from '../webgpu-kernel.ts';
import { rowVectors } from '../webgpu-rows.ts';
import { PHILOX_SOURCE, keepConstants } from './webgpu-source.ts';

const SEED_SOURCE = `
fn seed(i: u32) -> u32 { return bitcast<u32>(arena[(c.seed + i) / 4u][(c.seed + i) % 4u]); }
`;

/** seed: two halves of the key and the number of the first sample; a sample has `length` rows. */
const BODY = `
  let whole = plus(multiply(seed(2u), c.length), row);
  let number = plus(multiply(whole.x, c.width) + vec2<u32>(0u, whole.y * c.width), column);
  let value = arena[at(c.x, c.xStride, row, column)] * keep_scale4(number, seed(0u), seed(1u));
  arena[at(c.y, c.yStride, row, column)] = masked(value, column, c.width);`;

export const dropoutWebGpu: WebGpuKernel = {
  dispatches(node) {
    return [
      rowVectors({
        entry: 'dropout',
        node,
        operands: ['x', 'y'],
        y: node.buffer('y'),
        source: PHILOX_SOURCE + SEED_SOURCE,
        body: BODY,
        constants: {
          seed: node.buffer('seed').offset,
          length: node.number('length'),
          ...keepConstants(node.number('stream'), node.number('rate')),
        },
      }),
    ];
  },
};
