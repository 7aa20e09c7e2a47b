/**
 * What WebGPU kernels that hold rows in registers share: how rows are spread over a workgroup, sums and maxima over it, and
 * the sums of parameter gradients over the workgroups of a dispatch.
 */

import { paddedColumns } from '../graph/graph.ts';
import { type WebGpuDispatch, type WebGpuNode, type WebGpuStorage, arena, writes } from './webgpu-kernel.ts';

/** A row over `lanes` invocations, a workgroup of its own: lane l has the vectors of 4 columns l, l + lanes, ... */
export interface RowLayout {
  readonly lanes: number;
  /** Vectors of a lane at most. */
  readonly chunks: number;
  /** Vectors of a row, padding included. */
  readonly vectors: number;
}

export function rowLayout(width: number): RowLayout {
  const vectors = paddedColumns(width) / 4;
  const lanes = vectors <= 64 ? 64 : vectors <= 128 ? 128 : 256;
  return { lanes, chunks: Math.ceil(vectors / lanes), vectors };
}

/** Invocations that are under way on a large GPU; more rows than these have room for are taken one after another. */
const RESIDENT = 2 ** 17;

/** Workgroups of a gradient kernel, each of which takes every `blocks`-th row and keeps sums of its own. */
export function gradientBlocks({ facts }: Pick<WebGpuNode, 'facts'>, rows: number, { lanes }: RowLayout): number {
  return Math.max(1, Math.min(rows, facts.software ? 16 : RESIDENT / lanes));
}

type Reduced = 'f32' | 'vec2<f32>' | 'vec4<f32>' | 'u32' | 'vec2<u32>';

/**
 * `name(value, lane)`: all lanes' values put together by `combine(a, b)`, in a fixed order, the same on every lane; every
 * lane of the workgroup takes part. Calls may follow one another without a barrier.
 */
export function reduction(name: string, type: Reduced, lanes: number, combine: (a: string, b: string) => string): string {
  return `
var<workgroup> ${name}_cells: array<${type}, ${lanes}>;
var<workgroup> ${name}_totals: array<${type}, 16>;
fn ${name}(value: ${type}, lane: u32) -> ${type} {
  ${name}_cells[lane] = value;
  workgroupBarrier();
  if (lane < 16u) {
    var total = ${name}_cells[lane];
    for (var i = lane + 16u; i < ${lanes}u; i += 16u) { total = ${combine('total', `${name}_cells[i]`)}; }
    ${name}_totals[lane] = total;
  }
  workgroupBarrier();
  var total = ${name}_totals[0];
  for (var i = 1u; i < 16u; i++) { total = ${combine('total', `${name}_totals[i]`)}; }
  return total;
}
`;
}

export function sums(name: string, type: Reduced, lanes: number): string {
  return reduction(name, type, lanes, (a, b) => `${a} + ${b}`);
}

/** `group_max(value, lane)`: the largest of a workgroup of 256. */
export const MAXIMUM_SOURCE = reduction('group_max', 'f32', 256, (a, b) => `max(${a}, ${b})`);

/** Below any logit; `largest_of`: the largest of the 4 columns from `column` on that are below `width`. */
export const SOFTMAX_SOURCE = `
const LOWEST = -1e38f;
const ONES = vec4<f32>(1.0);
fn largest_of(v: vec4<f32>, column: u32, width: u32) -> f32 {
  let live = vec4<u32>(column, column + 1u, column + 2u, column + 3u) < vec4<u32>(width);
  let kept = select(vec4<f32>(LOWEST), v, live);
  return max(max(kept.x, kept.y), max(kept.z, kept.w));
}
`;

/** The logistic function of each component: exponentials of numbers that are not positive alone. */
export const SIGMOID_SOURCE = `
fn sigmoid(z: vec4<f32>) -> vec4<f32> {
  let e = exp(-abs(z));
  return select(e, vec4<f32>(1.0), z >= vec4<f32>()) / (1.0 + e);
}
`;

const COLUMNS = 8;
const GROUPS = 32;

const ADD_ROWS_SOURCE = `
var<workgroup> cells: array<vec4<f32>, ${COLUMNS * GROUPS}>;

@compute @workgroup_size(${COLUMNS * GROUPS})
fn add_rows(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = wid.x * ${COLUMNS}u + lane % ${COLUMNS}u;
  let live = i < c.vectors;
  var sum = vec4<f32>();
  if (live) {
    let end = min(c.rows, (wid.y + 1u) * c.rowsEach);
    for (var row = wid.y * c.rowsEach + lane / ${COLUMNS}u; row < end; row += ${GROUPS}u) {
      sum += arena[c.rowsAt + row * c.stride + i];
    }
  }
  cells[lane] = sum;
  workgroupBarrier();
  if (lane >= ${COLUMNS}u || !live) { return; }
  for (var group = 1u; group < ${GROUPS}u; group++) { sum += cells[group * ${COLUMNS}u + lane]; }
  finish(wid.y, i, sum);
}
`;
const ADD_TO_GOAL = `
fn finish(part: u32, i: u32, sum: vec4<f32>) {
  for (var j = 0u; j < 4u; j++) {
    if (4u * i + j < c.width) { goal[c.first + 4u * i + j] += sum[j]; }
  }
}
`;
const ADD_TO_SCRATCH = `
fn finish(part: u32, i: u32, sum: vec4<f32>) { arena[c.sumsAt + part * c.vectors + i] = sum; }
`;

/** Rows of the arena: offset and stride in floats, multiples of 4. */
export interface SummedRows {
  readonly offset: number;
  readonly stride: number;
  readonly rows: number;
  readonly width: number;
}

function addRows({ offset, stride, rows, width }: SummedRows, parts: number, rowsEach: number) {
  const vectors = Math.ceil(width / 4);
  return {
    kind: 'dispatch',
    entry: 'add_rows',
    workgroups: [Math.ceil(vectors / COLUMNS), parts],
    constants: { rowsAt: offset / 4, rows, stride: stride / 4, vectors, width, rowsEach },
  } as const;
}

/** goal[first ... first + width] += the sum of rows of partial sums, in a fixed order. */
export function addPartials(goal: WebGpuStorage, partials: SummedRows, first = 0): WebGpuDispatch {
  const dispatch = addRows(partials, 1, partials.rows);
  return {
    ...dispatch,
    source: ADD_TO_GOAL + ADD_ROWS_SOURCE,
    bindings: [arena('vec4<f32>'), writes('goal', goal)],
    constants: { ...dispatch.constants, first },
  };
}

/** Many rows are summed in parts, of so many rows at least. */
const ROWS_A_PART = 256;
const MOST_PARTS = 64;

function partsOf(rows: number): { parts: number; rowsEach: number } {
  const rowsEach = Math.max(ROWS_A_PART, Math.ceil(rows / MOST_PARTS));
  return { parts: Math.ceil(rows / rowsEach), rowsEach };
}

/** Floats of scratch that `addManyRows` needs. */
export function addManyRowsFloats({ rows, width }: Pick<SummedRows, 'rows' | 'width'>): number {
  return partsOf(rows).parts * paddedColumns(width);
}

/** goal[first ... first + width] += the sum of many rows: of parts of them first, then of the parts. */
export function addManyRows(goal: WebGpuStorage, from: SummedRows, scratch: number, first: number): WebGpuDispatch[] {
  const { parts, rowsEach } = partsOf(from.rows);
  if (parts === 1) return [addPartials(goal, from, first)];
  const dispatch = addRows(from, parts, rowsEach);
  const partial: WebGpuDispatch = {
    ...dispatch,
    source: ADD_TO_SCRATCH + ADD_ROWS_SOURCE,
    bindings: [arena('vec4<f32>')],
    constants: { ...dispatch.constants, sumsAt: scratch / 4 },
  };
  const { width } = from;
  return [partial, addPartials(goal, { offset: scratch, stride: 4 * Math.ceil(width / 4), rows: parts, width }, first)];
}
