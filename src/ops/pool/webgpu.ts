/** Pooling of x (B, T, D) to y (B, D): the last token, or the mean of the others. */

import { paddedColumns } from '../../graph/graph.ts';
import { type WebGpuKernel, arena, f32, fold, rowConstants } from '../webgpu-kernel.ts';
import { BLOCK, INVOCATION, ROWS_SOURCE, rowVectors } from '../webgpu-rows.ts';

/** Vectors of 4 columns that a workgroup takes; so many invocations share the tokens of each. */
const ACROSS = 16;
const SHARES = BLOCK / ACROSS;

const LAST = `
  let value = arena[at(c.x, c.xStride, row * c.tokens + c.tokens - 1u, column)];
  arena[at(c.y, c.yStride, row, column)] = masked(value, column, c.width);`;

/** Shares are added in their order. */
const AVERAGE = `
var<workgroup> sums: array<vec4<f32>, ${BLOCK}>;

@compute @workgroup_size(${BLOCK})
fn pool_average(${INVOCATION}) {
  let group = folded(wid, count);
  let image = group / c.slices;
  if (image >= c.rows) { return; }
  let share = lane / ${ACROSS}u;
  let column = 4u * ((group % c.slices) * ${ACROSS}u + lane % ${ACROSS}u);
  var sum = vec4<f32>();
  if (column < 4u * c.vectors) {
    for (var token = share; token < c.tokens - 1u; token += ${SHARES}u) {
      sum += arena[at(c.x, c.xStride, image * c.tokens + token, column)];
    }
  }
  sums[lane] = sum;
  workgroupBarrier();
  if (share != 0u || column >= 4u * c.vectors) { return; }
  for (var i = 1u; i < ${SHARES}u; i++) { sum += sums[i * ${ACROSS}u + lane]; }
  arena[at(c.y, c.yStride, image, column)] = masked(sum * c.scale, column, c.width);
}
`;

export const poolWebGpu: WebGpuKernel = {
  dispatches(node) {
    const y = node.buffer('y');
    const tokens = node.buffer('x').shape[1]!;
    if (!node.flag('average')) {
      return [rowVectors({ entry: 'pool_last', node, operands: ['x', 'y'], y, body: LAST, constants: { tokens } })];
    }
    const vectors = paddedColumns(y.width) / 4;
    const slices = Math.ceil(vectors / ACROSS);
    return [
      {
        kind: 'dispatch',
        source: ROWS_SOURCE + AVERAGE,
        entry: 'pool_average',
        workgroups: fold(y.rows * slices),
        bindings: [arena('vec4<f32>')],
        constants: {
          ...rowConstants(node, 'x', 'y'),
          rows: y.rows,
          width: y.width,
          vectors,
          slices,
          tokens,
          scale: f32(1 / (tokens - 1)),
        },
      },
    ];
  },
};
