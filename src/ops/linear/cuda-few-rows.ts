/**
 * Products with few rows, read as fast as memory gives the weights: decoding, and int8 weights with up to 64 rows. Also
 * int8 weights as 16-bit rows for larger products.
 */

import { type Segment, segmentColumns } from '../../graph/graph.ts';
import {
  type CudaArgument,
  type CudaBuffer,
  type CudaElement,
  type CudaHalf,
  type CudaLaunch,
  type CudaNode,
  type CudaWeight,
  type KernelLaunch,
  ELEMENT_BYTES,
  cType,
  defines,
  i32,
} from '../cuda-kernel.ts';
import { DEQUANTISE_SOURCE, FEW_ROWS_SOURCE } from './cuda-few-rows-source.ts';
import { INT8_PRODUCT_SOURCE } from './cuda-int8-source.ts';

/** Up to so many rows of x these kernels beat a library's product. */
export const FEW_ROWS = 8;
/** The same for int8 weights, which a library's product has to see dequantised. */
export const FEW_ROWS_INT8 = 64;

/** Rows of x that one block keeps in shared memory, and the memory it may take for them. */
const MAX_ROWS = 8;
const MAX_SHARED_BYTES = 200 * 1024;

/** How a block brings x into shared memory: the defines and arguments of one `STAGE` of the source. */
export interface FewRowsStage {
  /** Blocks beside those of the product. */
  readonly moreBlocks?: number;
  readonly defines: Readonly<Record<string, string | number>>;
  readonly args: readonly CudaArgument[];
}

const COPIED: FewRowsStage = { defines: { STAGE: 0, WINDOW: 0, FOLD: 0 }, args: [] };

export interface FewRowsProduct {
  readonly x: CudaBuffer;
  readonly y: CudaBuffer;
  readonly weight: CudaWeight;
  readonly bias: bigint;
  readonly segments: readonly Segment[];
  readonly multiprocessors: number;
  readonly stage?: FewRowsStage;
}

/** What shapes the code of one product. */
interface FewRowsPlan {
  /** Rows of x a block, weight rows a warp reads together, 16-byte vectors of each that a lane holds. */
  readonly rows: number;
  readonly group: number;
  readonly vectors: number;
  readonly warps: number;
  readonly minBlocks: number;
  readonly sharedBytes: number;
}

/** Elements of a 16-byte vector. */
const vectorOf = (element: CudaElement): number => 16 / ELEMENT_BYTES[element];

/** Vectors a lane: as many as `most`, but few enough that the last chunk of a row is not mostly empty. */
function vectorsPerLane(perRow: number, most: number): number {
  let best = 1;
  let fewest = Infinity;
  for (let vectors = 1; vectors <= most; vectors++) {
    const slots = Math.ceil(perRow / (32 * vectors)) * vectors;
    if (slots <= fewest) [best, fewest] = [vectors, slots];
  }
  return best;
}

function planFewRows(rows: number, k: number, columns: number, element: CudaElement, multiprocessors: number): FewRowsPlan {
  const vector = vectorOf(element);
  const perRow = Math.ceil(k / vector);
  // A small matrix is spread over all multiprocessors; a large one gives every warp several rows, which share the
  // reads of x from shared memory: with many rows of x these would else take longer than the weights from memory.
  const each = columns / multiprocessors;
  for (let tile = Math.min(rows, MAX_ROWS); ; tile = Math.ceil(tile / 2)) {
    const many = tile > 2;
    const group = (each < 12 ? 1 : 2) * (many ? 2 : 1);
    const warps = each / group < 32 ? 4 : 8;
    const most = group === 1 ? 6 : group === 4 && warps === 8 ? 1 : 3;
    const vectors = vectorsPerLane(perRow, most);
    const places = Math.ceil(perRow / (32 * vectors)) * 32 * vectors;
    const sharedBytes = 4 * tile * places * vector;
    if (sharedBytes > MAX_SHARED_BYTES && tile > 1) continue;
    // Registers, for what is loaded, twice, bound the blocks of a multiprocessor; so does shared memory.
    const bySpace = Math.max(1, Math.floor(MAX_SHARED_BYTES / (sharedBytes + 2048)));
    const minBlocks = Math.min(bySpace, many ? (group === 4 ? 2 : 3) : warps === 8 ? 3 : 5);
    return { rows: tile, group, vectors, warps, minBlocks, sharedBytes };
  }
}

/** Segments as kernel arguments: start, count and column of each, and the defines that name them. */
function segmentArguments(segments: readonly Segment[]) {
  const { columns, total } = segmentColumns(segments);
  return {
    columns: total,
    defines: {
      SEGMENTS: segments.length,
      SEGMENT_PARAMETERS: segments.map((_, s) => `, int start${s}, int count${s}, int column${s}`).join(''),
      SEGMENT_TABLE: segments.map((_, s) => `start${s}, count${s}, column${s}`).join(', '),
    },
    args: segments.flatMap(({ start, count }, s) => [i32(start), i32(count), i32(columns[s]!)]),
  };
}

const scaleGroups = ({ stride, groupSize }: CudaWeight): number => (groupSize > 0 ? Math.ceil(stride / groupSize) : 0);

/** What both kernels are given: x, weight, bias, y and the segments. */
function productArguments(
  { x, y, weight, bias, segments }: Omit<FewRowsProduct, 'multiprocessors'>,
  columns: number,
): readonly CudaArgument[] {
  return [
    x.pointer,
    i32(x.stride),
    i32(x.rows),
    i32(x.width),
    weight.pointer,
    i32(weight.stride),
    weight.scales,
    i32(scaleGroups(weight)),
    i32(weight.groupSize),
    bias,
    y.pointer,
    i32(y.stride),
    i32(columns),
    ...segmentArguments(segments).args,
  ];
}

/** The launch of one product, its x staged as `stage` says. */
export function fewRowsLaunch(product: FewRowsProduct): KernelLaunch {
  const { x, y, weight, segments, multiprocessors, stage = COPIED } = product;
  const table = segmentArguments(segments);
  const columns = Math.min(table.columns, y.stride);
  const plan = planFewRows(x.rows, x.width, columns, weight.element, multiprocessors);
  const int8 = weight.element === 'i8';
  const groups = Math.ceil(columns / plan.group);
  const tiles = Math.ceil(x.rows / plan.rows);
  const resident = Math.max(1, Math.floor((plan.minBlocks * multiprocessors) / tiles));
  return {
    kind: 'kernel',
    source:
      defines({
        X: cType(x.element),
        W: cType(weight.element),
        Y: cType(y.element),
        ROWS: plan.rows,
        R: plan.group,
        U: plan.vectors,
        WARPS: plan.warps,
        MIN_BLOCKS: plan.minBlocks,
        SCALED: int8 ? 1 : 0,
        GROUPED: int8 && scaleGroups(weight) > 1 ? 1 : 0,
        ...table.defines,
        ...stage.defines,
      }) + FEW_ROWS_SOURCE,
    entry: 'few_rows',
    startsEarly: true,
    grid: [Math.min(Math.ceil(groups / plan.warps), resident) + (stage.moreBlocks ?? 0), tiles],
    block: 32 * plan.warps,
    sharedBytes: plan.sharedBytes,
    args: [...productArguments(product, columns), ...stage.args],
  };
}

/** Rows of x and weight rows that one mma takes, and warps of a block. */
const MMA_ROWS = 8;
const MMA_COLUMNS = 16;
const INT8_WARPS = 8;

/** The product of an int8 weight with 16-bit rows on tensor cores. */
function int8Launch({ x, y, weight, bias, segments, multiprocessors }: FewRowsProduct, half: CudaHalf): KernelLaunch {
  const table = segmentArguments(segments);
  const columns = Math.min(table.columns, y.stride);
  const tiles = Math.ceil(columns / MMA_COLUMNS);
  const pitch = 64 * Math.ceil(x.width / 64) + 8;
  let rowGroups = Math.ceil(Math.min(x.rows, FEW_ROWS_INT8) / MMA_ROWS);
  while (rowGroups > 1 && 2 * MMA_ROWS * rowGroups * pitch > MAX_SHARED_BYTES) rowGroups = Math.ceil(rowGroups / 2);
  const rows = MMA_ROWS * rowGroups;
  // Warps share a tile where there are too few tiles for all of them.
  let split = 1;
  while (split < INT8_WARPS && (tiles * split) / INT8_WARPS < multiprocessors) split *= 2;
  const sharedBytes = Math.max(2 * rows * pitch, split > 1 ? 4 * INT8_WARPS * MMA_COLUMNS * rows : 0);
  const minBlocks = 2 * sharedBytes < MAX_SHARED_BYTES ? 2 : 1;
  const rowBlocks = Math.ceil(x.rows / rows);
  const blocks = Math.ceil((tiles * split) / INT8_WARPS);
  return {
    kind: 'kernel',
    source:
      defines({
        X: cType(x.element),
        Y: cType(y.element),
        T: cType(half),
        NT: rowGroups,
        SPLIT: split,
        MIN_BLOCKS: minBlocks,
        GROUPED: scaleGroups(weight) > 1 ? 1 : 0,
        ...table.defines,
      }) + INT8_PRODUCT_SOURCE,
    entry: 'int8_product',
    startsEarly: true,
    grid: [Math.min(blocks, Math.max(1, Math.floor((minBlocks * multiprocessors) / rowBlocks))), rowBlocks],
    block: 32 * INT8_WARPS,
    sharedBytes,
    args: productArguments({ x, y, weight, bias, segments }, columns),
  };
}

/** `linear` with up to FEW_ROWS rows, or up to FEW_ROWS_INT8 of an int8 weight. */
export function fewRowsLaunches(node: CudaNode): readonly CudaLaunch[] {
  const product: FewRowsProduct = {
    x: node.buffer('x'),
    y: node.buffer('y'),
    weight: node.weight('weight'),
    bias: node.has('bias') ? node.weight('bias').pointer : 0n,
    segments: node.segments('segments'),
    multiprocessors: node.multiprocessors,
  };
  const onTensorCores = product.weight.element === 'i8' && product.x.rows > FEW_ROWS;
  return [onTensorCores && node.activation !== 'f32' ? int8Launch(product, node.activation) : fewRowsLaunch(product)];
}

/** Bytes of scratch memory that `dequantiseLaunch` writes. */
export function dequantiseBytes(weight: CudaWeight, segments: readonly Segment[], element: CudaElement): number {
  return segmentColumns(segments).total * weight.stride * ELEMENT_BYTES[element];
}

/**
 * Writes the segments' rows of an int8 matrix to `to` in `element`: row i ([columns of y][weight.stride]) is the weight
 * row that column i of `linear`'s y is a product with, zero where i pads a segment, so that one product gives all of y.
 */
export function dequantiseLaunch(
  weight: CudaWeight,
  segments: readonly Segment[],
  to: bigint,
  element: Exclude<CudaElement, 'i8' | 'i32'>,
): KernelLaunch {
  const table = segmentArguments(segments);
  const rows = table.columns;
  return {
    kind: 'kernel',
    source: defines({ T: cType(element), ...table.defines }) + DEQUANTISE_SOURCE,
    entry: 'dequantise',
    grid: [Math.ceil((rows * weight.stride) / 16 / 256)],
    block: 256,
    args: [
      weight.pointer,
      i32(weight.stride),
      weight.scales,
      i32(scaleGroups(weight)),
      i32(weight.groupSize),
      to,
      i32(rows),
      ...table.args,
    ],
  };
}
