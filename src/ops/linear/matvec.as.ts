/**
 * The product of one or a few rows with float32, bfloat16 or half weights, read once where they lie: bound by memory.
 *
 * Measured at one row and 24 weights of 3392 x 768, one core, best of 60, GB/s on Node 20 / 24: float32 23 / 23,
 * bfloat16 23 / 23, half 16 / 11 (bound by its conversion); a loop that only reads reaches 26. Loading eight halves at
 * once and splitting even from odd ones gained little over two widening loads: bfloat16 21 / 23, half 15 / 8.5.
 * One float32 weight row times up to 4 rows took 0.95 / 0.69 ms at 3392 x 768 on one core; two weight rows at a time,
 * which break the one ascending stream, 1.33 / 0.96; packing 1.24 / 1.20.
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
  panelsOf,
  segmentAt,
  storePanel,
  sumLanes4,
  xAt,
  yAt,
  zeroPanel,
} from './arguments.as';
import { evens, odds, scaled, touchRows } from './dequantise.as';

/** 2^56: its square undoes the 2^-112 of halves; multiplied with x and with the sum, neither overflows. */
const HALF_SCALE_ROOT: f32 = 7.205759403792794e16;

/** Computes this thread's share of the columns. */
export function linearFewRows(address: usize, thread: i32, threads: i32): void {
  const args = changetype<LinearArguments>(address);
  if (thread >= args.columnParts) return;
  let first = firstPanel(args, thread);
  let last = firstPanel(args, thread + 1);
  for (let s = 0; s < args.segments; s++) {
    const segment = segmentAt(args, s);
    const panels = panelsOf(segment);
    const end = min(last, panels);
    for (let panel = max(first, 0); panel < end; panel++) {
      if (panel * PANEL >= segment.count) zeroPanel(args, segment, panel, 0, args.rows);
      else if (args.dtype == F32) floatPanel(args, segment, panel);
      else if (args.dtype == BF16) halfPanel<u16>(args, segment, panel);
      else halfPanel<i16>(args, segment, panel);
    }
    first -= panels;
    last -= panels;
  }
}

function halfPanel<T>(args: LinearArguments, segment: LinearSegment, panel: i32): void {
  const source = segment.weight + (<usize>(panel * PANEL) * <usize>args.weightStride << 1);
  const end = source + (<usize>args.k << 4);
  const valid = segment.count - panel * PANEL;
  const low = biasOf(segment, panel, 0);
  const high = biasOf(segment, panel, 4);
  let row = 0;
  for (; row + 2 < args.rows; row += 4) halfTile4<T>(args, yAt(args, segment, row, panel), valid, row, source, end, low, high);
  for (; row < args.rows; row++) halfTile1<T>(xAt(args, row), yAt(args, segment, row, panel), valid, source, end, low, high);
}

/** One row times 8 columns; four sums of each so that the additions do not wait for each other. */
function halfTile1<T>(x: usize, y: usize, valid: i32, source: usize, end: usize, low: v128, high: v128): void {
  let c0 = f32x4.splat(0);
  let d0 = f32x4.splat(0);
  let c1 = f32x4.splat(0);
  let d1 = f32x4.splat(0);
  let c2 = f32x4.splat(0);
  let d2 = f32x4.splat(0);
  let c3 = f32x4.splat(0);
  let d3 = f32x4.splat(0);
  for (; source < end; source += 64, x += 16) {
    const x0 = scaledX<T>(x);
    const b0 = v128.load(source);
    c0 = madd(evens<T>(b0), x0, c0);
    d0 = madd(odds<T>(b0), x0, d0);
    const x1 = scaledX<T>(x + 4);
    const b1 = v128.load(source, 16);
    c1 = madd(evens<T>(b1), x1, c1);
    d1 = madd(odds<T>(b1), x1, d1);
    const x2 = scaledX<T>(x + 8);
    const b2 = v128.load(source, 32);
    c2 = madd(evens<T>(b2), x2, c2);
    d2 = madd(odds<T>(b2), x2, d2);
    const x3 = scaledX<T>(x + 12);
    const b3 = v128.load(source, 48);
    c3 = madd(evens<T>(b3), x3, c3);
    d3 = madd(odds<T>(b3), x3, d3);
  }
  let c = f32x4.add(f32x4.add(c0, c1), f32x4.add(c2, c3));
  let d = f32x4.add(f32x4.add(d0, d1), f32x4.add(d2, d3));
  if (isSigned<T>()) {
    c = f32x4.mul(c, f32x4.splat(HALF_SCALE_ROOT));
    d = f32x4.mul(d, f32x4.splat(HALF_SCALE_ROOT));
  }
  storePanel(y, f32x4.add(c, low), f32x4.add(d, high), valid);
}

/** Four times one value of x, with half of the scale that the weights lack. */
@inline
function scaledX<T>(x: usize): v128 {
  if (!isSigned<T>()) return v128.load32_splat(x);
  return f32x4.mul(v128.load32_splat(x), f32x4.splat(HALF_SCALE_ROOT));
}

/** 3 or 4 rows times 8 columns. */
function halfTile4<T>(args: LinearArguments, y: usize, valid: i32, row: i32, source: usize, end: usize, low: v128, high: v128): void {
  const rows = args.rows - row;
  let x0 = xAt(args, row);
  let x1 = xAt(args, row + 1);
  let x2 = xAt(args, row + 2);
  let x3 = xAt(args, row + min(3, rows - 1));
  let c00 = low;
  let c01 = high;
  let c10 = low;
  let c11 = high;
  let c20 = low;
  let c21 = high;
  let c30 = low;
  let c31 = high;
  while (source < end) {
    const values = v128.load(source);
    const b0 = scaled<T>(evens<T>(values));
    const b1 = scaled<T>(odds<T>(values));
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
    source += 16;
    x0 += 4;
    x1 += 4;
    x2 += 4;
    x3 += 4;
  }
  const step = <usize>args.yStride << 2;
  storePanel(y, c00, c01, valid);
  storePanel(y + step, c10, c11, valid);
  storePanel(y + 2 * step, c20, c21, valid);
  if (rows > 3) storePanel(y + 3 * step, c30, c31, valid);
}

/** Eight weight rows, row-major; rows past the segment's end repeat its last and are not stored. */
function floatPanel(args: LinearArguments, segment: LinearSegment, panel: i32): void {
  const weight = segment.weight + (<usize>(panel * PANEL) * <usize>args.weightStride << 2);
  const bytes = <usize>args.weightStride << 2;
  const valid = segment.count - panel * PANEL;
  const last = <usize>min(valid, PANEL) - 1;
  if (args.rows == 1) {
    if (args.k == args.weightStride) wholeRows(args, segment, panel, weight, last, valid);
    else rowPrefixes(args, segment, panel, weight, last, valid);
    return;
  }
  for (let lane: usize = 0; lane <= last; lane++) {
    for (let row = 0; row < args.rows; row += 4) floatTile(args, row, weight + lane * bytes, yAt(args, segment, row, panel) + (lane << 2));
  }
  for (let row = 0; row < args.rows; row++) {
    const at = yAt(args, segment, row, panel);
    storePanel(at, f32x4.add(v128.load(at), biasOf(segment, panel, 0)), f32x4.add(v128.load(at, 16), biasOf(segment, panel, 4)), valid);
  }
}

/** One row of x times 8 whole rows, one after the other: a single ascending stream. */
function wholeRows(args: LinearArguments, segment: LinearSegment, panel: i32, weight: usize, last: usize, valid: i32): void {
  const bytes = <usize>args.weightStride << 2;
  const x = args.x;
  const k = args.k;
  const d0 = dot(x, weight, k);
  const d1 = dot(x, weight + min<usize>(1, last) * bytes, k);
  const d2 = dot(x, weight + min<usize>(2, last) * bytes, k);
  const d3 = dot(x, weight + min<usize>(3, last) * bytes, k);
  const low = f32x4.add(sumLanes4(d0, d1, d2, d3), biasOf(segment, panel, 0));
  let high = f32x4.splat(0);
  if (valid > 4) {
    const d4 = dot(x, weight + 4 * bytes, k);
    const d5 = dot(x, weight + min<usize>(5, last) * bytes, k);
    const d6 = dot(x, weight + min<usize>(6, last) * bytes, k);
    const d7 = dot(x, weight + min<usize>(7, last) * bytes, k);
    high = f32x4.add(sumLanes4(d4, d5, d6, d7), biasOf(segment, panel, 4));
  }
  storePanel(yAt(args, segment, 0, panel), low, high, valid);
}

/**
 * One row of x times the beginnings of 8 rows, side by side: short pieces of memory far apart are waited for together
 * (192 of 1536 columns, one core / two, GB/s: 6 to 7 / 11, one after the other 4 / 8).
 */
function rowPrefixes(args: LinearArguments, segment: LinearSegment, panel: i32, weight: usize, last: usize, valid: i32): void {
  const bytes = <usize>args.weightStride << 2;
  const w1 = weight + min<usize>(1, last) * bytes;
  const w2 = weight + min<usize>(2, last) * bytes;
  const w3 = weight + min<usize>(3, last) * bytes;
  const w4 = weight + min<usize>(4, last) * bytes;
  const w5 = weight + min<usize>(5, last) * bytes;
  const w6 = weight + min<usize>(6, last) * bytes;
  const w7 = weight + min<usize>(7, last) * bytes;
  let c0 = f32x4.splat(0);
  let c1 = f32x4.splat(0);
  let c2 = f32x4.splat(0);
  let c3 = f32x4.splat(0);
  let c4 = f32x4.splat(0);
  let c5 = f32x4.splat(0);
  let c6 = f32x4.splat(0);
  let c7 = f32x4.splat(0);
  const x = args.x;
  const end = <usize>args.k << 2;
  for (let at: usize = 0; at < end; at += 16) {
    const a = v128.load(x + at);
    c0 = madd(a, v128.load(weight + at), c0);
    c1 = madd(a, v128.load(w1 + at), c1);
    c2 = madd(a, v128.load(w2 + at), c2);
    c3 = madd(a, v128.load(w3 + at), c3);
    c4 = madd(a, v128.load(w4 + at), c4);
    c5 = madd(a, v128.load(w5 + at), c5);
    c6 = madd(a, v128.load(w6 + at), c6);
    c7 = madd(a, v128.load(w7 + at), c7);
  }
  const low = f32x4.add(sumLanes4(c0, c1, c2, c3), biasOf(segment, panel, 0));
  const high = f32x4.add(sumLanes4(c4, c5, c6, c7), biasOf(segment, panel, 4));
  storePanel(yAt(args, segment, 0, panel), low, high, valid);
}

/** Lane-wise sums of the product of two rows. */
function dot(x: usize, w: usize, k: i32): v128 {
  const end = w + (<usize>k << 2);
  let c0 = f32x4.splat(0);
  let c1 = f32x4.splat(0);
  let c2 = f32x4.splat(0);
  let c3 = f32x4.splat(0);
  for (; w < end; w += 64, x += 64) {
    c0 = madd(v128.load(w), v128.load(x), c0);
    c1 = madd(v128.load(w, 16), v128.load(x, 16), c1);
    c2 = madd(v128.load(w, 32), v128.load(x, 32), c2);
    c3 = madd(v128.load(w, 48), v128.load(x, 48), c3);
  }
  return f32x4.add(f32x4.add(c0, c1), f32x4.add(c2, c3));
}

/** Up to 4 rows of x times one row of the weight; columns run along the lanes, so nothing is packed. */
function floatTile(args: LinearArguments, row: i32, w: usize, y: usize): void {
  const rows = args.rows - row;
  const x0 = xAt(args, row);
  const x1 = xAt(args, row + min(1, rows - 1));
  const x2 = xAt(args, row + min(2, rows - 1));
  const x3 = xAt(args, row + min(3, rows - 1));
  let c0 = f32x4.splat(0);
  let c1 = f32x4.splat(0);
  let c2 = f32x4.splat(0);
  let c3 = f32x4.splat(0);
  let d0 = f32x4.splat(0);
  let d1 = f32x4.splat(0);
  let d2 = f32x4.splat(0);
  let d3 = f32x4.splat(0);
  const bytes = <usize>args.k << 2;
  for (let at: usize = 0; at < bytes; at += 32) {
    const b = v128.load(w + at);
    c0 = madd(v128.load(x0 + at), b, c0);
    c1 = madd(v128.load(x1 + at), b, c1);
    c2 = madd(v128.load(x2 + at), b, c2);
    c3 = madd(v128.load(x3 + at), b, c3);
    const d = v128.load(w + at, 16);
    d0 = madd(v128.load(x0 + at, 16), d, d0);
    d1 = madd(v128.load(x1 + at, 16), d, d1);
    d2 = madd(v128.load(x2 + at, 16), d, d2);
    d3 = madd(v128.load(x3 + at, 16), d, d3);
  }
  const sums = sumLanes4(f32x4.add(c0, d0), f32x4.add(c1, d1), f32x4.add(c2, d2), f32x4.add(c3, d3));
  const step = <usize>args.yStride << 2;
  v128.store32_lane(y, sums, 0);
  if (rows > 1) v128.store32_lane(y + step, sums, 1);
  if (rows > 2) v128.store32_lane(y + 2 * step, sums, 2);
  if (rows > 3) v128.store32_lane(y + 3 * step, sums, 3);
}
