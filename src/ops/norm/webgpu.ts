/** WebGPU kernel of the row norms, for `norm` and `add_norm`: a workgroup for a row, its sums over the workgroup. */

import { paddedColumns } from '../../graph/graph.ts';
import {
  type WebGpuDispatch,
  type WebGpuKernel,
  type WebGpuNode,
  arena,
  f32,
  fold,
  reads,
  rowConstants,
  specialise,
} from '../webgpu-kernel.ts';
import { BLOCK, INVOCATION, ROWS_SOURCE, SUM_SOURCE } from '../webgpu-rows.ts';

/**
 * y = norm(x) * weight + bias; with ADD sum = x + residual and y the norm of that. All (rows, width). Padding columns of
 * weight and bias are zeros, so those of y are too. sum may lie where residual does.
 */
function source(hasBias: boolean): string {
  return `
fn load(row: u32, column: u32) -> vec4<f32> {
  if (ADD) { return arena[at(c.sum, c.sumStride, row, column)]; }
  return arena[at(c.x, c.xStride, row, column)];
}

@compute @workgroup_size(${BLOCK})
fn norm_rows(${INVOCATION}) {
  let row = folded(wid, count);
  if (row >= c.rows) { return; }
  var total = 0.0;
  var square = 0.0;
  for (var i = lane; i < c.vectors; i += ${BLOCK}u) {
    var v = arena[at(c.x, c.xStride, row, 4u * i)];
    if (ADD) {
      v = masked(v + arena[at(c.residual, c.residualStride, row, 4u * i)], 4u * i, c.width);
      arena[at(c.sum, c.sumStride, row, 4u * i)] = v;
    }
    if (CENTER) { total += v.x + v.y + v.z + v.w; } else { square += dot(v, v); }
  }
  var mean = 0.0;
  if (CENTER) {
    mean = group_sum(total, lane) / f32(c.width);
    for (var i = lane; i < c.vectors; i += ${BLOCK}u) {
      let v = masked(load(row, 4u * i) - mean, 4u * i, c.width);
      square += dot(v, v);
    }
  }
  let scale = 1.0 / sqrt(group_sum(square, lane) / f32(c.width) + c.eps);
  for (var i = lane; i < c.vectors; i += ${BLOCK}u) {
    let v = (load(row, 4u * i) - mean) * scale * weight[i]${hasBias ? ' + bias[i]' : ''};
    arena[at(c.y, c.yStride, row, 4u * i)] = v;
  }
}
`;
}

/** The dispatch of either op; `norm` has no residual and no sum. */
export function normDispatches(node: WebGpuNode): readonly WebGpuDispatch[] {
  const { rows, width } = node.buffer('x');
  const hasBias = node.has('bias');
  const bindings = [arena('vec4<f32>'), reads('weight', node.weight('weight').values, 'vec4<f32>')];
  if (hasBias) bindings.push(reads('bias', node.weight('bias').values, 'vec4<f32>'));
  return [
    {
      kind: 'dispatch',
      source: specialise({ ADD: node.has('residual'), CENTER: node.flag('center') }) + ROWS_SOURCE + SUM_SOURCE + source(hasBias),
      entry: 'norm_rows',
      workgroups: fold(rows),
      bindings,
      constants: {
        ...rowConstants(node, 'x', 'residual', 'sum', 'y'),
        rows,
        width,
        vectors: paddedColumns(width) / 4,
        eps: f32(node.number('eps')),
      },
    },
  ];
}

export const normWebGpu: WebGpuKernel = { dispatches: normDispatches };
