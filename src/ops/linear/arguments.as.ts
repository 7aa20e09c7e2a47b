/** What the kernels of the linear map are told, how its work is dealt to threads, and the zeros behind a segment. */

import { keepLanes, padded, shareStart } from '../as/simd.as';

/** Numbers of the weights' dtypes, as in `cpu.ts`. */
export const F32: i32 = 0;
export const BF16: i32 = 1;
export const F16: i32 = 2;
export const I8: i32 = 3;

/** Rows of a weight that lie together in bfloat16, half and int8 storage, and columns that all kernels compute at once. */
export const PANEL: i32 = 8;

@unmanaged
export class LinearArguments {
  x: usize;
  xStride: i32;
  rows: i32;
  /** Columns of x, rounded up to 16. */
  k: i32;
  y: usize;
  yStride: i32;
  dtype: i32;
  /** Elements from one row of the weight to the next. */
  weightStride: i32;
  /** Columns that share an int8 scale, and scales of a row. */
  groupSize: i32;
  scaleGroups: i32;
  /** Threads form a grid: so many shares of the rows, times so many of the columns. */
  rowParts: i32;
  columnParts: i32;
  /** Rows of x and panels of the weight that are worked on while they stay in the cache. */
  blockRows: i32;
  blockPanels: i32;
  /** Every thread has `scratchBytes` of its own. */
  scratch: usize;
  scratchBytes: usize;
  /** Rows of x as int16 [rows][k], their scales, and the largest magnitude they may have. */
  quantised: usize;
  quantisedScales: usize;
  quantisedRange: i32;
  /** How many `LinearSegment`s follow. */
  segments: i32;
}

@unmanaged
export class LinearSegment {
  /** The first row; for dtypes other than float32 it starts a panel. */
  weight: usize;
  scales: usize;
  /** 0: none. */
  bias: usize;
  count: i32;
  /** First column of y. */
  column: i32;
}

@inline
export function segmentAt(args: LinearArguments, index: i32): LinearSegment {
  return changetype<LinearSegment>(changetype<usize>(args) + offsetof<LinearArguments>() + <usize>index * offsetof<LinearSegment>());
}

/** Panels of a segment, those that are padding included. */
@inline
export function panelsOf(segment: LinearSegment): i32 {
  return padded(segment.count) / PANEL;
}

/** First panel, counted over all segments, of the share `part` of the columns. */
export function firstPanel(args: LinearArguments, part: i32): i32 {
  let panels = 0;
  for (let s = 0; s < args.segments; s++) panels += panelsOf(segmentAt(args, s));
  return shareStart(panels, 1, part, args.columnParts);
}

/** First row of the share `part` of the rows. */
@inline
export function firstRow(args: LinearArguments, part: i32): i32 {
  return shareStart(args.rows, 4, part, args.rowParts);
}

@inline
export function xAt(args: LinearArguments, row: i32): usize {
  return args.x + (<usize>row * <usize>args.xStride << 2);
}

/** Address of the first result of `panel` of a segment in `row`. */
@inline
export function yAt(args: LinearArguments, segment: LinearSegment, row: i32, panel: i32): usize {
  return args.y + (<usize>row * <usize>args.yStride + <usize>(segment.column + panel * PANEL) << 2);
}

/** Lanes 0..3 or, with `lane` 4, 4..7 of the bias of `panel`. */
@inline
export function biasOf(segment: LinearSegment, panel: i32, lane: i32): v128 {
  return segment.bias == 0 ? f32x4.splat(0) : v128.load(segment.bias + (<usize>(panel * PANEL + lane) << 2));
}

/** Stores eight results, zeros from column `valid` on: whatever the weight holds there, padding is zero. */
@inline
export function storePanel(y: usize, low: v128, high: v128, valid: i32): void {
  if (valid < PANEL) {
    low = keepLanes(low, valid);
    high = keepLanes(high, valid - 4);
  }
  v128.store(y, low);
  v128.store(y, high, 16);
}

/** Writes zeros where `panel` holds none of the segment's columns. */
export function zeroPanel(args: LinearArguments, segment: LinearSegment, panel: i32, row: i32, end: i32): void {
  for (; row < end; row++) storePanel(yAt(args, segment, row, panel), f32x4.splat(0), f32x4.splat(0), PANEL);
}

/** The sums of the lanes of four vectors. */
@inline
export function sumLanes4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
}
