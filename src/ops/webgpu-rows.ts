/** What WebGPU kernels over rows share: vectors of 4 columns dealt to invocations, and sums over a workgroup. */

import { paddedColumns } from '../graph/graph.ts';
import {
  type WebGpuBinding,
  type WebGpuBuffer,
  type WebGpuConstants,
  type WebGpuDispatch,
  type WebGpuNode,
  arena,
  fold,
  rowConstants,
} from './webgpu-kernel.ts';

/** Invocations of a workgroup. */
export const BLOCK = 256;

/**
 * `at(offset, stride, row, column)`: where 4 columns lie in an arena of `vec4<f32>`. `masked(v, column, width)`: v with
 * zeros from column `width` on, v being the columns from `column` on.
 */
export const ROWS_SOURCE = `
fn at(offset: u32, stride: u32, row: u32, column: u32) -> u32 { return (offset + row * stride + column) / 4u; }
fn masked(v: vec4<f32>, column: u32, width: u32) -> vec4<f32> {
  return select(vec4<f32>(), v, vec4<u32>(column, column + 1u, column + 2u, column + 3u) < vec4<u32>(width));
}
`;

/**
 * `group_sum(value, lane)`: the sum over a workgroup of 256, the same in all of them, in a fixed order. Two steps of 16
 * instead of a tree of 8: barriers are what software adapters are slow at.
 */
export const SUM_SOURCE = `
var<workgroup> sum_cells: array<f32, ${BLOCK}>;
fn group_sum(value: f32, lane: u32) -> f32 {
  sum_cells[lane] = value;
  workgroupBarrier();
  if (lane < 16u) {
    var part = 0.0;
    for (var i = lane; i < ${BLOCK}u; i += 16u) { part += sum_cells[i]; }
    sum_cells[lane] = part;
  }
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < 16u; i++) { sum += sum_cells[i]; }
  workgroupBarrier();
  return sum;
}
`;

/** Parameters of a `@compute` function that `folded` and the lane need. */
export const INVOCATION = `@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) lane: u32`;

interface RowVectors {
  readonly entry: string;
  readonly node: WebGpuNode;
  /** Names of the buffer operands: constants `c.x`, `c.xStride` for each. */
  readonly operands: readonly string[];
  /** Rows and width are this one's. */
  readonly y: WebGpuBuffer;
  /** WGSL that runs for every 4 columns, padding included, given `row`, `column`, `c.width` and `at`, `masked`. */
  readonly body: string;
  /** Functions that the body calls. */
  readonly source?: string;
  readonly bindings?: readonly WebGpuBinding[];
  readonly constants?: WebGpuConstants;
}

/** One invocation for every 4 columns of every row of `y`; the arena is `array<vec4<f32>>`. */
export function rowVectors({
  entry,
  node,
  operands,
  y,
  body,
  source = '',
  bindings = [],
  constants = {},
}: RowVectors): WebGpuDispatch {
  const vectors = paddedColumns(y.width) / 4;
  return {
    kind: 'dispatch',
    source: `${ROWS_SOURCE}${source}
@compute @workgroup_size(${BLOCK})
fn ${entry}(${INVOCATION}) {
  let i = folded(wid, count) * ${BLOCK}u + lane;
  if (i >= c.rows * c.vectors) { return; }
  let row = i / c.vectors;
  let column = 4u * (i % c.vectors);
${body}
}
`,
    entry,
    workgroups: fold(Math.ceil((y.rows * vectors) / BLOCK)),
    bindings: [arena('vec4<f32>'), ...bindings],
    constants: { ...rowConstants(node, ...operands), rows: y.rows, width: y.width, vectors, ...constants },
  };
}
