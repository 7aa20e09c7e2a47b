/**
 * WGSL of the linear map of many rows by subgroup matrices (tensor cores), whose operands are halves and whose sums are float32.
 *
 * The weight's elements are halves or int8, so halves hold them exactly; a row's own scale is multiplied in with the sum.
 * x is float32: it goes in as two halves, its first 11 bits and 2048 times what these leave, with sums of their own, so that
 * products are as exact as float32's to about 2^-21. What lies beyond the range of halves, 65,504, is cut off there.
 */

import { MATRIX_KERNEL_BYTES, type MatrixTile } from '../webgpu-kernel.ts';
import { INVOCATION } from '../webgpu-rows.ts';
import { indices, unrolled } from '../webgpu-text.ts';

/** Rows and columns of y of a workgroup. */
export const MATRIX_TILE = 64;
/** Those of one of its subgroups: two by two of them. */
const OWN = 32;
const SUBGROUPS = 4;
/** Steps of the sum in workgroup memory, and halves from row to row there: more, against bank conflicts. */
const DEPTH = 32;
const PITCH = DEPTH + 8;

/** Whether tiles of the adapter's size fill those of the kernel, and its workgroup memory holds all. */
export function matrixFits({ m, n, k }: MatrixTile): boolean {
  const bytes = 2 * 3 * MATRIX_TILE * PITCH + 4 * 2 * SUBGROUPS * m * n;
  return OWN % m === 0 && OWN % n === 0 && DEPTH % k === 0 && bytes <= MATRIX_KERNEL_BYTES;
}

/**
 * Needs `weightPieces` of `weight`, in pieces of `pieceColumns`, `store_row` and `columns` (see `webgpu.ts`). A sum's length
 * is a multiple of 16: past it a tile's halves are zero.
 */
export function matrixSource({ m, n, k }: MatrixTile, subgroupSize: number, pieceColumns: number): string {
  const lanes = SUBGROUPS * subgroupSize;
  const xQuads = (MATRIX_TILE * DEPTH) / 4 / lanes;
  const wPieces = Math.max(1, (MATRIX_TILE * DEPTH) / pieceColumns / lanes);
  const piecesOfRow = DEPTH / pieceColumns;
  const [down, across] = [OWN / m, OWN / n];
  const outQuads = (m * n) / 4 / subgroupSize;
  const sums = indices(down * across).map((i) => ({ i: Math.floor(i / across), j: i % across }));
  const matrix = (side: string, type: string, columns: number, rows: number): string =>
    `subgroup_matrix_${side}<${type}, ${columns}, ${rows}>`;
  const [left, right, result] = [matrix('left', 'f16', k, m), matrix('right', 'f16', n, k), matrix('result', 'f32', n, m)];
  // Lane's i-th piece: a row of the tile, and which of that row's pieces.
  const place = (i: number, ofRow: number): string =>
    `let row = (lane + ${i * lanes}u) / ${ofRow}u;\n    let part = (lane + ${i * lanes}u) % ${ofRow}u;`;
  const load = `${unrolled(
    xQuads,
    (i) => `  {
    ${place(i, DEPTH / 4)}
    x${i} = vec4<f32>();
    if (first_row + row < c.rows && step + 4u * part < c.steps) { x${i} = arena[at(c.x, c.xStride, first_row + row, step + 4u * part)]; }
  }
`,
  )}${unrolled(
    wPieces,
    (i) => `  {
    ${place(i, piecesOfRow)}
    w${i} = weight_Piece();
    let live = row < ${MATRIX_TILE}u && first_column + row < c.columns && step + ${pieceColumns}u * part < c.steps;
    if (live) {
      let weight_row = columns[(first_column + row) / 4u][(first_column + row) % 4u];
      if (weight_row < PADDING) { w${i} = weight_piece(weight_row, step / ${pieceColumns}u + part); }
    }
  }
`,
  )}`;
  const keep = `${unrolled(
    xQuads,
    (i) => `  {
    ${place(i, DEPTH / 4)}
    let cell = row * ${PITCH}u + 4u * part;
    let high = high_of(x${i});
    let low = vec4<f16>(clamp(2048.0 * (x${i} - high), vec4<f32>(-65504.0), vec4<f32>(65504.0)));
${unrolled(4, (j) => `    x_high[cell + ${j}u] = f16(high[${j}]);\n    x_low[cell + ${j}u] = low[${j}];\n`)}  }
`,
  )}${unrolled(
    wPieces,
    (i) => `  {
    ${place(i, piecesOfRow)}
    if (row < ${MATRIX_TILE}u) {
      let cell = row * ${PITCH}u + ${pieceColumns}u * part;
${unrolled(
  pieceColumns / 4,
  (q) => `      let v${q} = vec4<f16>(weight_four(w${i}, ${q}u));
${unrolled(4, (j) => `      w_tile[cell + ${4 * q + j}u] = v${q}[${j}];\n`)}`,
)}    }
  }
`,
  )}`;
  return `
// The first 11 bits, by bits: a conversion there and back may be left out by a compiler. Of what is small nothing.
fn high_of(x: vec4<f32>) -> vec4<f32> {
  let kept = bitcast<vec4<f32>>(bitcast<vec4<u32>>(clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0))) & vec4<u32>(0xffffe000u));
  return select(kept, vec4<f32>(), abs(x) < vec4<f32>(6.2e-5));
}
var<workgroup> x_high: array<f16, ${MATRIX_TILE * PITCH}>;
var<workgroup> x_low: array<f16, ${MATRIX_TILE * PITCH}>;
var<workgroup> w_tile: array<f16, ${MATRIX_TILE * PITCH}>;
var<workgroup> out_high: array<f32, ${SUBGROUPS * m * n}>;
var<workgroup> out_low: array<f32, ${SUBGROUPS * m * n}>;

@compute @workgroup_size(${lanes})
fn matrix_product(${INVOCATION}, @builtin(subgroup_id) subgroup: u32) {
  let tile = folded(wid, count);
  if (tile >= c.tiles) { return; }
  let first_row = ${MATRIX_TILE}u * (tile / c.columnTiles);
  let first_column = ${MATRIX_TILE}u * (tile % c.columnTiles);
  let own_row = ${OWN}u * (subgroup / 2u);
  let own_column = ${OWN}u * (subgroup % 2u);
${sums.map(({ i, j }) => `  var high${i}_${j}: ${result};\n  var low${i}_${j}: ${result};\n`).join('')}${unrolled(xQuads, (i) => `  var x${i}: vec4<f32>;\n`)}${unrolled(wPieces, (i) => `  var w${i}: weight_Piece;\n`)}
  var step = 0u;
${load}
  while (step < c.steps) {
${keep}
    workgroupBarrier();
    step += ${DEPTH}u;
${load}
${unrolled(
  DEPTH / k,
  (s) => `    {
${unrolled(
  across,
  (j) =>
    `      let b${j} = subgroupMatrixLoad<${right}, col_major>(&w_tile, (own_column + ${j * n}u) * ${PITCH}u + ${s * k}u, ${PITCH}u);\n`,
)}${unrolled(
    down,
    (
      i,
    ) => `      let a${i} = subgroupMatrixLoad<${left}, row_major>(&x_high, (own_row + ${i * m}u) * ${PITCH}u + ${s * k}u, ${PITCH}u);
      let r${i} = subgroupMatrixLoad<${left}, row_major>(&x_low, (own_row + ${i * m}u) * ${PITCH}u + ${s * k}u, ${PITCH}u);
${unrolled(
  across,
  (j) => `      high${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, high${i}_${j});
      low${i}_${j} = subgroupMatrixMultiplyAccumulate(r${i}, b${j}, low${i}_${j});
`,
)}`,
  )}    }
`,
)}    workgroupBarrier();
  }
${sums
  .map(
    ({ i, j }) => `  subgroupMatrixStore<row_major>(&out_high, subgroup * ${m * n}u, high${i}_${j}, ${n}u);
  subgroupMatrixStore<row_major>(&out_low, subgroup * ${m * n}u, low${i}_${j}, ${n}u);
  workgroupBarrier();
${unrolled(
  outQuads,
  (q) => `  {
    let cell = 4u * (lane % ${subgroupSize}u + ${q * subgroupSize}u);
    let row = first_row + own_row + ${i * m}u + cell / ${n}u;
    let column = first_column + own_column + ${j * n}u + cell % ${n}u;
    let at_cell = subgroup * ${m * n}u + cell;
    let sum = vec4<f32>(out_high[at_cell], out_high[at_cell + 1u], out_high[at_cell + 2u], out_high[at_cell + 3u]);
    let rest = vec4<f32>(out_low[at_cell], out_low[at_cell + 1u], out_low[at_cell + 2u], out_low[at_cell + 3u]);
    if (row < c.rows && column < c.columns) { store_row(row, column, sum + rest / 2048.0); }
  }
`,
)}  workgroupBarrier();
`,
  )
  .join('')}}
`;
}
