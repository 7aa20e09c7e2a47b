/**
 * WGSL of the linear map of many rows and of the products in its gradient: a workgroup of 64 computes 64 x 64 of the
 * result, an invocation 8 x 8 in registers, from tiles of 16 steps along the sum. Both tiles hold vectors of 4 along the
 * result's rows or columns, so that a step is an outer product. What the next tiles hold is on its way while these are multiplied.
 */

import { unrolled } from '../webgpu-text.ts';

const LANES = 64;
export const TILE = 64;
/** Steps of the sum in a tile; segments begin at multiples of it. */
export const DEPTH = 16;
/** Vectors from step to step of a tile: one more than needed, against bank conflicts. */
const PITCH = TILE / 4 + 1;

/** On lines of their own. */
const each = (count: number, text: (i: number) => string): string => unrolled(count, text, '\n');

/** Row i of an invocation's 8: four together, then four 32 further on. */
const rowOf = (i: number): string => `${i < 4 ? i : 28 + i}u + 4u * ty`;

/**
 * A source says which 4 x 4 block an invocation brings along (`a_quad`, `b_quad` across, `a_step`, `b_step` along the sum),
 * how it is read (`a_block`, `b_block`), and where sums go (`store`).
 */
const PRODUCT_SOURCE = `
var<workgroup> a_tile: array<vec4<f32>, ${DEPTH * PITCH}>;
var<workgroup> b_tile: array<vec4<f32>, ${DEPTH * PITCH}>;

@compute @workgroup_size(${LANES})
fn product(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) lane: u32) {
  let tile = folded(wid, count);
  if (tile >= c.tiles) { return; }
  let split = tile / (c.rowTiles * c.columnTiles);
  let row_tile = tile / c.columnTiles % c.rowTiles;
  let first_column = ${TILE}u * (tile % c.columnTiles);
  let a_cell = (4u * a_step(lane)) * ${PITCH}u + a_quad(lane);
  let b_cell = (4u * b_step(lane)) * ${PITCH}u + b_quad(lane);
  let tx = lane % 8u;
  let ty = lane / 8u;
${each(8, (i) => `  var s${i}0 = vec4<f32>();\n  var s${i}1 = vec4<f32>();`)}
  let begin = split * c.stepsEach;
  let end = min(c.steps, begin + c.stepsEach);
  let b_column = first_column + 4u * b_quad(lane);
  var a = a_block(row_tile, begin, a_quad(lane), 4u * a_step(lane));
  var b = b_block(b_column, begin, 4u * b_step(lane));
  for (var step = begin; step < end; step++) {
${each(4, (j) => `    a_tile[a_cell + ${j * PITCH}u] = a[${j}];\n    b_tile[b_cell + ${j * PITCH}u] = b[${j}];`)}
    workgroupBarrier();
    if (step + 1u < end) {
      a = a_block(row_tile, step + 1u, a_quad(lane), 4u * a_step(lane));
      b = b_block(b_column, step + 1u, 4u * b_step(lane));
    }
    for (var k = 0u; k < ${DEPTH * PITCH}u; k += ${PITCH}u) {
      let a0 = a_tile[k + ty];
      let a1 = a_tile[k + ty + 8u];
      let b0 = b_tile[k + tx];
      let b1 = b_tile[k + tx + 8u];
${each(8, (i) => `      s${i}0 += a${i >> 2}.${'xyzw'[i & 3]} * b0;\n      s${i}1 += a${i >> 2}.${'xyzw'[i & 3]} * b1;`)}
    }
    workgroupBarrier();
  }
  let column = first_column + 4u * tx;
${each(8, (i) => `  store(split, row_tile, ${rowOf(i)}, column, s${i}0);\n  store(split, row_tile, ${rowOf(i)}, column + 32u, s${i}1);`)}
}
`;

// Neighbours read neighbouring steps of the sum, or neighbouring columns of the result.
const ALONG = (name: string): string => `
fn ${name}_step(lane: u32) -> u32 { return lane % 4u; }
fn ${name}_quad(lane: u32) -> u32 { return lane / 4u; }`;
const ACROSS = (name: string): string => `
fn ${name}_step(lane: u32) -> u32 { return lane / 16u; }
fn ${name}_quad(lane: u32) -> u32 { return lane % 16u; }`;

/**
 * y[row][column] = sum over k of x[row][k] weight[row of the column][k] by `store_row` (see `webgpu.ts`), which multiplies a
 * row's own scale in. `columns`: for every column of y the row of the part.
 */
export const OUTPUT_PRODUCT_SOURCE = `${ALONG('a')}${ALONG('b')}
fn a_block(row_tile: u32, step: u32, quad: u32, j: u32) -> mat4x4<f32> {
  var block: mat4x4<f32>;
  let row = ${TILE}u * row_tile + 4u * quad;
  let k = ${DEPTH}u * step + j;
${each(4, (i) => `  if (row + ${i}u < c.rows) { block[${i}] = arena[at(c.x, c.xStride, row + ${i}u, k)]; }`)}
  return transpose(block);
}
fn b_block(column: u32, step: u32, j: u32) -> mat4x4<f32> {
  var block: mat4x4<f32>;
  if (column >= c.columns) { return block; }
  let rows = columns[column / 4u];
  let k = ${DEPTH}u * step + j;
${each(4, (i) => `  if (rows[${i}] < PADDING) { block[${i}] = weight_raw(rows[${i}], k) * weight_inner(rows[${i}], k); }`)}
  return transpose(block);
}
fn store(split: u32, row_tile: u32, tile_row: u32, column: u32, sum: vec4<f32>) {
  let row = ${TILE}u * row_tile + tile_row;
  if (row < c.rows && column < c.columns) { store_row(row, column, sum); }
}
${PRODUCT_SOURCE}`;

/**
 * Entries of `columns` say for 16 columns of dy, from `.x` on, that column j belongs to row `.y` + j of the part (32-bit
 * arithmetic that wraps) where `.z` <= j < `.w`.
 *
 * dx[row][column] = sum over the table's columns of dy[row][..] weight[..][column]; with `c.accumulate` added to it.
 */
export const INPUT_PRODUCT_SOURCE = `
fn inside(entry: vec4<u32>, j: u32) -> vec4<bool> {
  let columns_of = vec4<u32>(j, j + 1u, j + 2u, j + 3u);
  return (columns_of >= vec4<u32>(entry.z)) & (columns_of < vec4<u32>(entry.w));
}
${ALONG('a')}${ACROSS('b')}
fn a_block(row_tile: u32, step: u32, quad: u32, j: u32) -> mat4x4<f32> {
  let entry = columns[step];
  let live = inside(entry, j);
  var block: mat4x4<f32>;
  for (var i = 0u; i < 4u; i++) {
    let row = ${TILE}u * row_tile + 4u * quad + i;
    if (row < c.rows) {
      block[i] = select(vec4<f32>(), arena[at(c.dy, c.dyStride, row, entry.x + j)], live);
    }
  }
  return transpose(block);
}
fn b_block(column: u32, step: u32, j: u32) -> mat4x4<f32> {
  let entry = columns[step];
  let live = inside(entry, j);
  var block: mat4x4<f32>;
  for (var i = 0u; i < 4u; i++) {
    if (live[i] && column < c.columns) { block[i] = weight_at(entry.y + j + i, column); }
  }
  return block;
}
fn store(split: u32, row_tile: u32, tile_row: u32, column: u32, sum: vec4<f32>) {
  let row = ${TILE}u * row_tile + tile_row;
  if (row >= c.rows || column >= c.columns) { return; }
  let i = at(c.dx, c.dxStride, row, column);
  var value = masked(sum, column, c.width);
  if (c.accumulate != 0u) { value += arena[i]; }
  arena[i] = value;
}
${PRODUCT_SOURCE}`;

/**
 * gradient[..][column] += sum over a split's rows of dy[row][..] x[row][column], 16 rows a step; with SPLIT into scratch,
 * [splits][16 entries][columns], for \`add_splits\`.
 */
export const WEIGHT_PRODUCT_SOURCE = `${ACROSS('a')}${ACROSS('b')}
fn a_block(row_tile: u32, step: u32, quad: u32, j: u32) -> mat4x4<f32> {
  var block: mat4x4<f32>;
  let index = 4u * row_tile + quad / 4u;
  if (index < c.entries) {
    let column = columns[index].x + 4u * (quad % 4u);
    for (var i = 0u; i < 4u; i++) {
      let row = ${DEPTH}u * step + j + i;
      if (row < c.rows) { block[i] = arena[at(c.dy, c.dyStride, row, column)]; }
    }
  }
  return block;
}
fn b_block(column: u32, step: u32, j: u32) -> mat4x4<f32> {
  var block: mat4x4<f32>;
  for (var i = 0u; i < 4u; i++) {
    let row = ${DEPTH}u * step + j + i;
    if (row < c.rows && column < c.columns) {
      block[i] = masked(arena[at(c.x, c.xStride, row, column)], column, c.width);
    }
  }
  return block;
}
fn store(split: u32, row_tile: u32, tile_row: u32, column: u32, sum: vec4<f32>) {
  let index = 4u * row_tile + tile_row / 16u;
  if (index >= c.entries || column >= c.columns) { return; }
  if (SPLIT) {
    arena[(c.partials + ((split * c.entries + index) * 16u + tile_row % 16u) * c.columns + column) / 4u] = sum;
    return;
  }
  let entry = columns[index];
  let j = tile_row % 16u;
  if (j >= entry.z && j < entry.w) { gradient[((entry.y + j) * c.gradientStride + column) / 4u] += sum; }
}
${PRODUCT_SOURCE}`;

/** gradient[..] += the splits' sums, in their order; an invocation for 4 columns of a row. */
export const ADD_SPLITS_SOURCE = `
@compute @workgroup_size(256)
fn add_splits(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) lane: u32) {
  let i = folded(wid, count) * 256u + lane;
  let row = 4u * i / c.columns;
  if (row >= 16u * c.entries) { return; }
  let entry = columns[row / 16u];
  let j = row % 16u;
  if (j < entry.z || j >= entry.w) { return; }
  let size = 4u * c.entries * c.columns;
  var sum = arena[c.partials / 4u + i];
  for (var split = 1u; split < c.splits; split++) { sum += arena[c.partials / 4u + split * size + i]; }
  gradient[((entry.y + j) * c.gradientStride + 4u * i % c.columns) / 4u] += sum;
}
`;
