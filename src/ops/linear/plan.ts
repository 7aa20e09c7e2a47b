/**
 * Which kernel computes a product, how its threads are laid out, and the scratch that needs: the numbers behind it
 * were measured on two cores of a 2023 server.
 */

import { paddedColumns } from '../../graph/graph.ts';
import type { WeightDType } from '../cpu-kernel.ts';

/** Columns that kernels compute at once, and rows of a stored panel. */
const PANEL = 8;
/** Largest number of rows for which the weights are read where they lie. */
const FEW_ROWS: Readonly<Record<Exclude<WeightDType, 'i8'>, number>> = { f32: 4, bf16: 12, f16: 3 };
/** Smallest number of rows that a BLAS computes faster, its weights dequantised first unless they are float32. */
const BLAS_ROWS: Readonly<Record<WeightDType, number>> = { f32: 5, bf16: 16, f16: 16, i8: 32 };
/** Packing a weight costs as much as multiplying so many rows with it. */
const PACK_ROWS = 8;
/** Bytes of packed weights, and of rows of x, that are worked on while they stay in the cache of one core. */
const WEIGHT_BLOCK_BYTES = 96 * 1024;
const ROW_BLOCK_BYTES = 256 * 1024;
/** Columns of dequantised weights in one call of a BLAS. */
const BLAS_BLOCK_COLUMNS = 128;
/** Sums of products with int8 stay below this. */
const INT32_LIMIT = 2 ** 31 - 1;

export interface LinearShape {
  readonly rows: number;
  readonly k: number;
  /** Columns of each segment. */
  readonly counts: readonly number[];
  readonly dtype: WeightDType;
  /** Columns that share an int8 scale. */
  readonly groupSize: number;
}

export interface LinearPlan {
  readonly kernel: 'linear_blas' | 'linear_few_rows' | 'linear_gemm' | 'linear_int8';
  /** Threads in a grid: shares of the rows times shares of the columns. */
  readonly rowParts: number;
  readonly columnParts: number;
  readonly blockRows: number;
  readonly blockPanels: number;
  /** Bytes of scratch of each thread. */
  readonly threadBytes: number;
  /** Bytes of quantised x, its scales behind it, and the largest magnitude in it; 0 when x stays float32. */
  readonly quantisedBytes: number;
  readonly quantisedRange: number;
}

export function planLinear(shape: LinearShape, threads: number, blas: boolean): LinearPlan {
  const { rows, dtype, groupSize } = shape;
  const k = paddedColumns(shape.k);
  const panels = shape.counts.reduce((sum, count) => sum + Math.ceil(count / PANEL), 0);
  const whole = { blockRows: rows, blockPanels: 2 * panels, threadBytes: 0, quantisedBytes: 0, quantisedRange: 0 };
  if (blas && rows >= BLAS_ROWS[dtype]) {
    const blockPanels = dtype === 'f32' ? whole.blockPanels : BLAS_BLOCK_COLUMNS / PANEL;
    const threadBytes = dtype === 'f32' ? 0 : 4 * BLAS_BLOCK_COLUMNS * k;
    return { ...whole, kernel: 'linear_blas', ...grid(rows, panels, threads, PACK_ROWS), blockPanels, threadBytes };
  }
  if (dtype === 'i8') {
    return {
      ...whole,
      kernel: 'linear_int8',
      ...grid(rows, panels, threads, 0),
      blockRows: rowBlock(2 * k),
      blockPanels: Math.max(1, Math.floor(WEIGHT_BLOCK_BYTES / (PANEL * k))),
      quantisedBytes: rows * (2 * k + 4),
      quantisedRange: Math.min(32767, Math.floor(INT32_LIMIT / (32 * Math.min(k, groupSize)))),
    };
  }
  if (rows <= FEW_ROWS[dtype]) return { ...whole, kernel: 'linear_few_rows', rowParts: 1, columnParts: threads };
  const blockPanels = Math.min(panels, Math.max(1, Math.floor(WEIGHT_BLOCK_BYTES / (4 * PANEL * k))));
  const threadBytes = 4 * PANEL * k * blockPanels;
  return {
    ...whole,
    kernel: 'linear_gemm',
    ...grid(rows, panels, threads, PACK_ROWS),
    blockRows: rowBlock(4 * k),
    blockPanels,
    threadBytes,
  };
}

/** Bytes of scratch that the plan needs. */
export function planBytes(plan: LinearPlan, threads: number): number {
  return threads * plan.threadBytes + plan.quantisedBytes;
}

function rowBlock(rowBytes: number): number {
  return Math.max(4, 4 * Math.floor(ROW_BLOCK_BYTES / (4 * rowBytes)));
}

/** The grid of threads whose busiest member has the least to do, when every share of rows packs `packRows` more. */
function grid(rows: number, panels: number, threads: number, packRows: number): { rowParts: number; columnParts: number } {
  let best = { rowParts: 1, columnParts: threads };
  let least = Infinity;
  for (let rowParts = 1; rowParts <= threads; rowParts++) {
    const columnParts = Math.floor(threads / rowParts);
    const work = (4 * Math.ceil(Math.ceil(rows / 4) / rowParts) + packRows) * Math.ceil(panels / columnParts);
    if (work < least) [least, best] = [work, { rowParts, columnParts }];
  }
  return best;
}
