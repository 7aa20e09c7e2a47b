/**
 * WebGPU kernels of the linear map: y = x weight^T + bias on row segments, one dispatch for every part of the weight that
 * has rows of them. A table says for each column of y which row of the part it is.
 */

import { type Segment, paddedColumns, segmentColumns } from '../../graph/graph.ts';
import {
  type WebGpuDispatch,
  type WebGpuKernel,
  type WebGpuNode,
  type WebGpuWeight,
  type WeightPart,
  arena,
  fold,
  reads,
  rowConstants,
  specialise,
  table,
  weightRows,
} from '../webgpu-kernel.ts';
import { BLOCK, INVOCATION, ROWS_SOURCE } from '../webgpu-rows.ts';

/** Up to so many rows of x go to the kernel that reads the weight once, a few columns a workgroup. */
export const FEW_ROWS = 8;

/** Entries of the table of columns that name no row: a padding column, zero; a column of another part, left alone. */
const PADDING = 0xfffffffe;
const ELSEWHERE = 0xffffffff;

/** For every column of y, padding included, the row of the part it is computed from. */
export function columnRows(segments: readonly Segment[], { firstRow, rows }: WeightPart): Uint32Array {
  const { columns, total } = segmentColumns(segments);
  const map = new Uint32Array(total).fill(firstRow === 0 ? PADDING : ELSEWHERE);
  for (const [s, { start, count }] of segments.entries()) {
    for (let i = 0; i < count; i++) {
      const row = start + i - firstRow;
      map[columns[s]! + i] = row >= 0 && row < rows ? row : ELSEWHERE;
    }
  }
  return map;
}

/** What both kernels end with: four columns of a row of y, where `sums` belongs to this part. */
const STORE_SOURCE = `
const PADDING = ${PADDING}u;
const ELSEWHERE = ${ELSEWHERE}u;
fn store(row: u32, column: u32, sums: vec4<f32>) {
  let i = at(c.y, c.yStride, row, column);
  let rows = columns[column / 4u];
  let old = arena[i];
  arena[i] = vec4<f32>(
    finished(rows.x, sums.x, old.x), finished(rows.y, sums.y, old.y),
    finished(rows.z, sums.z, old.z), finished(rows.w, sums.w, old.w));
}
fn finished(row: u32, sum: f32, old: f32) -> f32 {
  if (row == ELSEWHERE) { return old; }
  if (row == PADDING) { return 0.0; }
  return sum + bias_of(row);
}
`;

const FEW_COLUMNS = 8;
const LANES = BLOCK / FEW_COLUMNS;

/** x: ROWS rows; a workgroup computes 8 columns, 32 invocations each, that share out the columns of x. */
const FEW_ROWS_SOURCE = `
var<workgroup> cells: array<f32, ${BLOCK} * ROWS>;
fn four(cell: u32) -> f32 { return cells[cell] + cells[cell + 1u] + cells[cell + 2u] + cells[cell + 3u]; }

@compute @workgroup_size(${BLOCK})
fn few_rows(${INVOCATION}) {
  let first = ${FEW_COLUMNS}u * folded(wid, count);
  if (first >= c.columns) { return; }
  let column = first + lane / ${LANES}u;
  let part_lane = lane % ${LANES}u;
  let row = columns[column / 4u][column % 4u];
  var sums: array<f32, ROWS>;
  if (row < PADDING) {
    for (var i = part_lane; i < c.vectors; i += ${LANES}u) {
      let w = weight_at(row, 4u * i);
      for (var m = 0u; m < ROWS; m++) { sums[m] += dot(w, arena[at(c.x, c.xStride, m, 4u * i)]); }
    }
  }
  for (var m = 0u; m < ROWS; m++) { cells[m * ${BLOCK}u + lane] = sums[m]; }
  workgroupBarrier();
  /* Invocation i sums 8 of the 32 cells of a column of a row, every fourth one. */
  if (lane < ${4 * FEW_COLUMNS}u * ROWS) {
    let cell = lane / 4u * ${LANES}u + lane % 4u;
    var sum = 0.0;
    for (var i = 0u; i < ${LANES}u; i += 4u) { sum += cells[cell + i]; }
    cells[cell] = sum;
  }
  workgroupBarrier();
  if (lane < ROWS * ${FEW_COLUMNS / 4}u) {
    let cell = 4u * ${LANES}u * lane;
    let sum = vec4<f32>(
      four(cell), four(cell + ${LANES}u), four(cell + ${2 * LANES}u), four(cell + ${3 * LANES}u));
    store(lane / ${FEW_COLUMNS / 4}u, first + 4u * (lane % ${FEW_COLUMNS / 4}u), sum);
  }
}
`;

const TILE = 64;
/** Columns of x in a tile, and vectors from row to row of a tile in workgroup memory: one more, against bank conflicts. */
const TILE_K = 16;
const PITCH = TILE_K / 4 + 1;

/**
 * A workgroup computes 64 rows x 64 columns, an invocation 4 rows, 16 apart, x 4 columns. Tiles hold vectors along k; the
 * weight's rows are ordered so that neighbours read neighbours.
 */
const TILES_SOURCE = `
var<workgroup> x_tile: array<vec4<f32>, ${TILE * PITCH}>;
var<workgroup> w_tile: array<vec4<f32>, ${TILE * PITCH}>;

@compute @workgroup_size(${BLOCK})
fn tiles(${INVOCATION}) {
  let tile = folded(wid, count);
  if (tile >= c.tiles) { return; }
  let first_row = ${TILE}u * (tile / c.columnTiles);
  let first_column = ${TILE}u * (tile % c.columnTiles);
  let tx = lane % 16u;
  let ty = lane / 16u;

  let load_line = lane / ${TILE_K / 4}u;
  let load_k = 4u * (lane % ${TILE_K / 4}u);
  let x_row = first_row + load_line;
  let column = first_column + load_line;
  var w_row = ELSEWHERE;
  if (column < c.columns) { w_row = columns[column / 4u][column % 4u]; }
  let x_cell = load_line * ${PITCH}u + load_k / 4u;
  let w_cell = (load_line % 4u * 16u + load_line / 4u) * ${PITCH}u + load_k / 4u;

  var sums: array<vec4<f32>, 4>;
  for (var k = 0u; k < 4u * c.vectors; k += ${TILE_K}u) {
    var x = vec4<f32>();
    var w = vec4<f32>();
    if (x_row < c.rows) { x = arena[at(c.x, c.xStride, x_row, k + load_k)]; }
    if (w_row < PADDING) { w = weight_at(w_row, k + load_k); }
    x_tile[x_cell] = x;
    w_tile[w_cell] = w;
    workgroupBarrier();
    for (var i = 0u; i < ${TILE_K / 4}u; i++) {
      let b0 = w_tile[tx * ${PITCH}u + i];
      let b1 = w_tile[(tx + 16u) * ${PITCH}u + i];
      let b2 = w_tile[(tx + 32u) * ${PITCH}u + i];
      let b3 = w_tile[(tx + 48u) * ${PITCH}u + i];
      for (var j = 0u; j < 4u; j++) {
        let a = x_tile[(ty + 16u * j) * ${PITCH}u + i];
        sums[j] += vec4<f32>(dot(a, b0), dot(a, b1), dot(a, b2), dot(a, b3));
      }
    }
    workgroupBarrier();
  }
  let out_column = first_column + 4u * tx;
  if (out_column >= c.columns) { return; }
  for (var j = 0u; j < 4u; j++) {
    let row = first_row + ty + 16u * j;
    if (row < c.rows) { store(row, out_column, sums[j]); }
  }
}
`;

/** A product with one part of a weight; undefined when no row of it is asked for. */
function partDispatch(node: WebGpuNode, weight: WebGpuWeight, part: WeightPart): WebGpuDispatch | undefined {
  const x = node.buffer('x');
  const columns = columnRows(node.segments('segments'), part);
  if (columns.every((row) => row === ELSEWHERE)) return undefined;
  const reader = weightRows('weight', weight, part);
  const bindings = [arena('vec4<f32>'), ...reader.bindings, table('columns', columns, 'vec4<u32>')];
  let bias = 'fn bias_of(row: u32) -> f32 { return 0.0; }\n';
  if (node.has('bias')) {
    bindings.push(reads('bias', node.weight('bias').values));
    bias = 'fn bias_of(row: u32) -> f32 { return bias[c.firstRow + row]; }\n';
  }
  const columnTiles = Math.ceil(columns.length / TILE);
  const tiles = columnTiles * Math.ceil(x.rows / TILE);
  const constants = {
    ...rowConstants(node, 'x', 'y'),
    ...reader.constants,
    rows: x.rows,
    vectors: paddedColumns(x.width) / 4,
    columns: columns.length,
    firstRow: part.firstRow,
    columnTiles,
    tiles,
  };
  const source = ROWS_SOURCE + reader.source + bias + STORE_SOURCE;
  if (x.rows <= FEW_ROWS) {
    return {
      kind: 'dispatch',
      source: specialise({ ROWS: x.rows }) + source + FEW_ROWS_SOURCE,
      entry: 'few_rows',
      workgroups: fold(columns.length / FEW_COLUMNS),
      bindings,
      constants,
    };
  }
  return { kind: 'dispatch', source: source + TILES_SOURCE, entry: 'tiles', workgroups: fold(tiles), bindings, constants };
}

export const linearWebGpu: WebGpuKernel = {
  dispatches(node) {
    const weight = node.weight('weight');
    return weight.parts.flatMap((part) => partDispatch(node, weight, part) ?? []);
  },
};
