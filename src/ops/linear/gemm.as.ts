/**
 * The product of many rows, for float32, bfloat16 and half weights: panels of 8 weight rows become float32
 * [column][8] in the thread's scratch, then tiles of 4 x 8 results run over all columns.
 *
 * The tile was chosen by measurement at 480 x 768 x 3360, one core, GFLOP/s on Node 20 / 24: 4x8 without unrolling
 * 52 / 52, unrolled twice 27 / 51, four times 35 / 35; 5x8 22 / 53; 6x8 26 / 56; 3x12 50 / 52; 4x12 26 / 27; 2x16
 * 53 / 46. Unrolled or larger ones spill registers on one engine or both. Rows of x are read where they lie: packing
 * them as well won nothing.
 */

import { madd } from '../as/simd.as';
import {
  BF16,
  F32,
  LinearArguments,
  LinearSegment,
  PANEL,
  biasOf,
  firstPanel,
  firstRow,
  panelsOf,
  segmentAt,
  storePanel,
  xAt,
  yAt,
  zeroPanel,
} from './arguments.as';
import { evens, odds, scaled, touchRows, transpose } from './dequantise.as';

/** Computes this thread's part of the grid. */
export function linearGemm(address: usize, thread: i32, threads: i32): void {
  const args = changetype<LinearArguments>(address);
  if (thread >= args.rowParts * args.columnParts) return;
  const rowPart = thread / args.columnParts;
  const columnPart = thread % args.columnParts;
  const row = firstRow(args, rowPart);
  const rowEnd = firstRow(args, rowPart + 1);
  let first = firstPanel(args, columnPart);
  let last = firstPanel(args, columnPart + 1);
  const scratch = args.scratch + <usize>thread * args.scratchBytes;
  for (let s = 0; s < args.segments; s++) {
    const segment = segmentAt(args, s);
    const panels = panelsOf(segment);
    const end = min(last, panels);
    for (let panel = max(first, 0); panel < end; panel += args.blockPanels) {
      block(args, segment, panel, min(panel + args.blockPanels, end), row, rowEnd, scratch);
    }
    first -= panels;
    last -= panels;
  }
}

/** Packs panels `panel .. panelEnd` and multiplies rows with them, a block of rows at a time. */
function block(args: LinearArguments, segment: LinearSegment, panel: i32, panelEnd: i32, row: i32, rowEnd: i32, scratch: usize): void {
  const panelBytes = <usize>args.k << 5;
  for (let p = panel; p < panelEnd; p++) {
    if (p * PANEL < segment.count) pack(args, segment, p, scratch + <usize>(p - panel) * panelBytes);
  }
  for (let first = row; first < rowEnd; first += args.blockRows) {
    const end = min(first + args.blockRows, rowEnd);
    for (let p = panel; p < panelEnd; p++) {
      const valid = segment.count - p * PANEL;
      if (valid > 0) multiply(args, segment, p, valid, first, end, scratch + <usize>(p - panel) * panelBytes);
      else zeroPanel(args, segment, p, first, end);
    }
  }
}

/** One panel as float32 [column][8]. Rows past the segment's end repeat its last: their results are not stored. */
function pack(args: LinearArguments, segment: LinearSegment, panel: i32, target: usize): void {
  const stride = <usize>args.weightStride;
  const end = target + (<usize>args.k << 5);
  if (args.dtype == F32) {
    const first = segment.weight + (<usize>(panel * PANEL) * stride << 2);
    const last = segment.count - 1 - panel * PANEL;
    touchRows(first, <usize>min(last + 1, PANEL), stride << 2, <usize>args.k << 2);
    for (let half = 0; half < 2; half++) {
      let a = first + (<usize>min(4 * half, last) * stride << 2);
      let b = first + (<usize>min(4 * half + 1, last) * stride << 2);
      let c = first + (<usize>min(4 * half + 2, last) * stride << 2);
      let d = first + (<usize>min(4 * half + 3, last) * stride << 2);
      for (let to = target + (<usize>half << 4); to < end; to += 128) {
        transpose(v128.load(a), v128.load(b), v128.load(c), v128.load(d), to, 32);
        a += 16;
        b += 16;
        c += 16;
        d += 16;
      }
    }
  } else if (args.dtype == BF16) {
    widen<u16>(segment.weight + (<usize>(panel * PANEL) * stride << 1), target, end);
  } else {
    widen<i16>(segment.weight + (<usize>(panel * PANEL) * stride << 1), target, end);
  }
}

@inline
function widen<T>(source: usize, target: usize, end: usize): void {
  for (; target < end; target += 32, source += 16) {
    const values = v128.load(source);
    v128.store(target, scaled<T>(evens<T>(values)));
    v128.store(target, scaled<T>(odds<T>(values)), 16);
  }
}

/** Rows `row .. end` times one packed panel. */
function multiply(args: LinearArguments, segment: LinearSegment, panel: i32, valid: i32, row: i32, end: i32, packed: usize): void {
  const low = biasOf(segment, panel, 0);
  const high = biasOf(segment, panel, 4);
  const packedEnd = packed + (<usize>args.k << 5);
  for (; row < end; row += 4) tile(args, yAt(args, segment, row, panel), valid, row, end - row, packed, packedEnd, low, high);
}

/** 4 rows times 8 columns; with fewer rows the last one is computed again and not stored. */
function tile(args: LinearArguments, y: usize, valid: i32, row: i32, rows: i32, panel: usize, panelEnd: usize, low: v128, high: v128): void {
  let x0 = xAt(args, row);
  let x1 = xAt(args, row + min(1, rows - 1));
  let x2 = xAt(args, row + min(2, rows - 1));
  let x3 = xAt(args, row + min(3, rows - 1));
  let c00 = low;
  let c01 = high;
  let c10 = low;
  let c11 = high;
  let c20 = low;
  let c21 = high;
  let c30 = low;
  let c31 = high;
  while (panel < panelEnd) {
    const b0 = v128.load(panel);
    const b1 = v128.load(panel, 16);
    const a0 = v128.load32_splat(x0);
    c00 = madd(a0, b0, c00);
    c01 = madd(a0, b1, c01);
    const a1 = v128.load32_splat(x1);
    c10 = madd(a1, b0, c10);
    c11 = madd(a1, b1, c11);
    const a2 = v128.load32_splat(x2);
    c20 = madd(a2, b0, c20);
    c21 = madd(a2, b1, c21);
    const a3 = v128.load32_splat(x3);
    c30 = madd(a3, b0, c30);
    c31 = madd(a3, b1, c31);
    panel += 32;
    x0 += 4;
    x1 += 4;
    x2 += 4;
    x3 += 4;
  }
  const step = <usize>args.yStride << 2;
  storePanel(y, c00, c01, valid);
  if (rows > 1) storePanel(y + step, c10, c11, valid);
  if (rows > 2) storePanel(y + 2 * step, c20, c21, valid);
  if (rows > 3) storePanel(y + 3 * step, c30, c31, valid);
}
