/**
 * WebGPU kernels of the linear map: y = x weight^T + bias on row segments, one dispatch for every part of the weight that
 * has rows of them. A table says for each column of y which row of the part it is.
 */

import { type Segment, paddedColumns, segmentColumns } from '../../graph/graph.ts';
import {
  MATRIX_EXTENSIONS,
  type WebGpuBinding,
  type WebGpuBuffer,
  type WebGpuConstants,
  type WebGpuDispatch,
  type WebGpuKernel,
  type WebGpuNode,
  type WebGpuWeight,
  type WeightPart,
  arena,
  fold,
  reads,
  rowConstants,
  table,
} from '../webgpu-kernel.ts';
import { ROWS_SOURCE } from '../webgpu-rows.ts';
import { weightPieces, weightRows } from '../webgpu-weight-rows.ts';
import { MATRIX_TILE, matrixFits, matrixSource } from './webgpu-matrix-source.ts';
import { type FewRowsStage, fewRowsPlan, fewRowsSource } from './webgpu-few-rows.ts';
import { DEPTH, OUTPUT_PRODUCT_SOURCE, TILE } from './webgpu-product-source.ts';

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
fn store_row(row: u32, column: u32, sums: vec4<f32>) {
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
  return sum * weight_outer(row) + bias_of(row);
}
`;

function tilesOf(rows: number, columns: number, size: number) {
  const [rowTiles, columnTiles] = [Math.ceil(rows / size), Math.ceil(columns / size)];
  return { rowTiles, columnTiles, tiles: rowTiles * columnTiles };
}

/** What comes before the product of a few rows: x and its source, with what that needs. */
export interface StagedRows extends FewRowsStage {
  readonly x: WebGpuBuffer;
  readonly bindings: readonly WebGpuBinding[];
  readonly constants: WebGpuConstants;
}

/** A product with one part of a weight; undefined when no row of it is asked for. */
export function partDispatch(
  node: WebGpuNode,
  weight: WebGpuWeight,
  part: WeightPart,
  stage?: StagedRows,
): WebGpuDispatch | undefined {
  const x = stage?.x ?? node.buffer('x');
  const columns = columnRows(node.segments('segments'), part);
  if (columns.every((row) => row === ELSEWHERE)) return undefined;
  const { matrix, subgroupSize } = node.facts;
  const isFew = x.rows <= FEW_ROWS;
  const isExact = weight.element === 'f16' || (weight.element === 'i8' && weight.groups === 1);
  const byMatrices = !isFew && isExact && matrix && matrixFits(matrix) ? matrix : undefined;
  const inPieces = isFew || byMatrices ? weightPieces('weight', weight, part) : undefined;
  const reader = inPieces ?? weightRows('weight', weight, part);
  const bindings = [arena('vec4<f32>'), ...reader.bindings, table('columns', columns, 'vec4<u32>')];
  let bias = 'fn bias_of(row: u32) -> f32 { return 0.0; }\n';
  if (node.has('bias')) {
    bindings.push(reads('bias', node.weight('bias').values));
    bias = 'fn bias_of(row: u32) -> f32 { return bias[c.firstRow + row]; }\n';
  }
  const source = ROWS_SOURCE + reader.source + bias + STORE_SOURCE;
  const constants = {
    x: x.offset,
    xStride: x.stride,
    ...rowConstants(node, 'y'),
    ...reader.constants,
    rows: x.rows,
    columns: columns.length,
    firstRow: part.firstRow,
  };
  const width = paddedColumns(x.width);
  if (inPieces && byMatrices) {
    const tiles = tilesOf(x.rows, columns.length, MATRIX_TILE);
    return {
      kind: 'dispatch',
      source: source + matrixSource(byMatrices, subgroupSize, inPieces.columns),
      entry: 'matrix_product',
      workgroups: fold(tiles.tiles),
      bindings,
      constants: { ...constants, ...tiles, steps: width },
      enable: MATRIX_EXTENSIONS,
    };
  }
  if (inPieces) {
    const pieces = width / inPieces.columns;
    const plan = fewRowsPlan(x.rows, columns.length, pieces, weight.element);
    const groups = Math.ceil(columns.length / plan.columns);
    return {
      kind: 'dispatch',
      source: source + fewRowsSource(plan, inPieces.columns, weight.groupSize, subgroupSize, stage),
      entry: 'few_rows',
      workgroups: fold(groups + (stage?.aside ? 1 : 0)),
      bindings: [...bindings, ...(stage?.bindings ?? [])],
      constants: { ...constants, pieces, ...stage?.constants, ...(stage?.aside ? { asideAt: plan.columns * groups } : {}) },
      ...(subgroupSize > 0 ? { enable: ['subgroups'] } : {}),
    };
  }
  const tiles = tilesOf(x.rows, columns.length, TILE);
  const steps = width / DEPTH;
  return {
    kind: 'dispatch',
    source: source + OUTPUT_PRODUCT_SOURCE,
    entry: 'product',
    workgroups: fold(tiles.tiles),
    bindings,
    constants: { ...constants, ...tiles, steps, stepsEach: steps },
  };
}

export const linearWebGpu: WebGpuKernel = {
  dispatches(node) {
    const weight = node.weight('weight');
    return weight.parts.flatMap((part) => partDispatch(node, weight, part) ?? []);
  },
};
