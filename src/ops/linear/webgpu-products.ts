/**
 * Products with weights on WebGPU for ops that name their operands themselves: the linear map's own kernels on matrices
 * anywhere in the arena, and the two products of its gradient.
 */

import { MatMambaError } from '../../errors.ts';
import { type Segment, paddedColumns, segmentColumns } from '../../graph/graph.ts';
import {
  type WebGpuBuffer,
  type WebGpuCommand,
  type WebGpuDispatch,
  type WebGpuNode,
  type WebGpuWeight,
  type WeightPart,
  arena,
  fold,
  specialise,
  table,
  writes,
} from '../webgpu-kernel.ts';
import { ROWS_SOURCE } from '../webgpu-rows.ts';
import { weightRows } from '../webgpu-weight-rows.ts';
import { linearWebGpu } from './webgpu.ts';
import { ADD_SPLITS_SOURCE, DEPTH, INPUT_PRODUCT_SOURCE, TILE, WEIGHT_PRODUCT_SOURCE } from './webgpu-product-source.ts';

/** Rows in the arena: offset of the first and from one to the next, in floats. */
export interface Matrix {
  readonly offset: number;
  readonly stride: number;
  readonly rows: number;
  readonly width: number;
}

/** Rows `first .. first + rows`. */
export function rowsFrom<M extends Matrix>(matrix: M, first: number, rows: number): M {
  return { ...matrix, offset: matrix.offset + first * matrix.stride, rows };
}

/** y = x weight^T on rows of the weight, by the kernels of `linear`. */
export function forwardProduct(
  node: WebGpuNode,
  x: Matrix,
  weight: WebGpuWeight,
  segments: readonly Segment[],
  y: Matrix,
): readonly WebGpuCommand[] {
  const buffer = (matrix: Matrix): WebGpuBuffer => ({ ...matrix, element: 'f32', shape: [matrix.rows, matrix.width] });
  const buffers: Readonly<Record<string, WebGpuBuffer>> = { x: buffer(x), y: buffer(y) };
  return linearWebGpu.dispatches({
    attributes: { segments },
    buffer: (name) => buffers[name]!,
    weight: () => weight,
    state: (name) => node.state(name),
    has: (name) => name in buffers || name === 'weight',
    segments: () => segments,
    number: (name) => node.number(name),
    flag: (name) => node.flag(name),
    facts: node.facts,
    scratch: node.scratch,
  });
}

/** Entries of 4 numbers, see `PRODUCT_SOURCE`: the columns of dy, 16 at a time, that belong to rows of a part. */
function columnTiles(segments: readonly Segment[], { firstRow, rows }: WeightPart): Uint32Array {
  const { columns } = segmentColumns(segments);
  const entries = segments.flatMap(({ start, count }, s) => {
    const own: number[] = [];
    for (let i = 0; i < count; i += DEPTH) {
      const row = start + i - firstRow;
      const low = Math.max(0, -row);
      const high = Math.min(DEPTH, count - i, rows - row);
      if (high > low) own.push(columns[s]! + i, row, low, high);
    }
    return own;
  });
  return Uint32Array.from(entries, (value) => value >>> 0);
}

/** dx = dy weight, over the segments' rows; columns that pad dx become zeros. */
export function inputProduct(dy: Matrix, weight: WebGpuWeight, segments: readonly Segment[], dx: Matrix): WebGpuDispatch[] {
  const dispatches: WebGpuDispatch[] = [];
  for (const part of weight.parts) {
    const columns = columnTiles(segments, part);
    if (columns.length === 0) continue;
    const reader = weightRows('weight', weight, part);
    const tiles = { rowTiles: Math.ceil(dx.rows / TILE), columnTiles: Math.ceil(paddedColumns(dx.width) / TILE) };
    const steps = columns.length / 4;
    dispatches.push({
      kind: 'dispatch',
      source: ROWS_SOURCE + reader.source + INPUT_PRODUCT_SOURCE,
      entry: 'product',
      workgroups: fold(tiles.rowTiles * tiles.columnTiles),
      bindings: [arena('vec4<f32>'), ...reader.bindings, table('columns', columns, 'vec4<u32>')],
      constants: {
        ...reader.constants,
        ...tiles,
        tiles: tiles.rowTiles * tiles.columnTiles,
        steps,
        stepsEach: steps,
        dy: dy.offset,
        dyStride: dy.stride,
        dx: dx.offset,
        dxStride: dx.stride,
        rows: dx.rows,
        width: dx.width,
        columns: paddedColumns(dx.width),
        accumulate: dispatches.length > 0 ? 1 : 0,
      },
    });
  }
  return dispatches;
}

/** Workgroups that keep a large GPU busy, and steps that make a split worth its sum. */
const ENOUGH_TILES = 512;
const SPLIT_STEPS = 16;
const MOST_SPLITS = 16;

interface WeightProduct {
  /** Rows of dy, and of the partial sums: 16 an entry. */
  readonly entries: number;
  readonly columns: number;
  readonly rowTiles: number;
  readonly columnTiles: number;
  readonly steps: number;
  readonly stepsEach: number;
  readonly splits: number;
}

function planOf(entries: number, x: Matrix): WeightProduct {
  const columns = paddedColumns(x.width);
  const rowTiles = Math.ceil((entries * DEPTH) / TILE);
  const columnTiles = Math.ceil(columns / TILE);
  const steps = Math.ceil(x.rows / DEPTH);
  const enough = Math.ceil(ENOUGH_TILES / (rowTiles * columnTiles));
  const wanted = Math.max(1, Math.min(enough, Math.floor(steps / SPLIT_STEPS), MOST_SPLITS));
  const stepsEach = Math.ceil(steps / wanted);
  return { entries, columns, rowTiles, columnTiles, steps, stepsEach, splits: Math.ceil(steps / stepsEach) };
}

/** Floats of scratch that `weightProduct` needs. */
export function weightProductFloats(x: Matrix, gradient: WebGpuWeight, segments: readonly Segment[]): number {
  const sizes = gradient.parts.map((part) => {
    const { splits, entries, columns } = planOf(columnTiles(segments, part).length / 4, x);
    return splits > 1 ? splits * entries * DEPTH * columns : 0;
  });
  return Math.max(...sizes);
}

/** gradient[the segments' rows] += dy^T x; `scratch` in floats, a multiple of 4. */
export function weightProduct(
  x: Matrix,
  dy: Matrix,
  gradient: WebGpuWeight,
  segments: readonly Segment[],
  scratch: number,
): WebGpuDispatch[] {
  if (gradient.element !== 'f32') throw new MatMambaError('INTERNAL', `a gradient is stored in ${gradient.element}`);
  return gradient.parts.flatMap((part): WebGpuDispatch[] => {
    const tilesOfPart = columnTiles(segments, part);
    if (tilesOfPart.length === 0) return [];
    const { splits, ...plan } = planOf(tilesOfPart.length / 4, x);
    const tiles = splits * plan.rowTiles * plan.columnTiles;
    const bindings = [
      arena('vec4<f32>'),
      writes('gradient', part.values, 'vec4<f32>'),
      table('columns', tilesOfPart, 'vec4<u32>'),
    ];
    const shared = { partials: scratch, gradientStride: gradient.stride };
    const product: WebGpuDispatch = {
      kind: 'dispatch',
      source: specialise({ SPLIT: splits > 1 }) + ROWS_SOURCE + WEIGHT_PRODUCT_SOURCE,
      entry: 'product',
      workgroups: fold(tiles),
      bindings,
      constants: {
        ...shared,
        ...plan,
        tiles,
        dy: dy.offset,
        dyStride: dy.stride,
        x: x.offset,
        xStride: x.stride,
        rows: x.rows,
        width: x.width,
      },
    };
    if (splits === 1) return [product];
    const { entries, columns } = plan;
    const sum: WebGpuDispatch = {
      kind: 'dispatch',
      source: ADD_SPLITS_SOURCE,
      entry: 'add_splits',
      workgroups: fold(Math.ceil((entries * DEPTH * columns) / 4 / 256)),
      bindings,
      constants: { ...shared, entries, columns, splits },
    };
    return [product, sum];
  });
}
