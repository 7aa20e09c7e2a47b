/**
 * The product with int8 weights, in whole numbers: rows of x become int16 with one scale each, products are summed
 * exactly in int32, and one multiplication per column brings the scales back.
 *
 * The largest magnitude of a quantised x is chosen so that no sum can overflow: 32767 up to 2048 columns a scale,
 * 4095 at 16384. Trial loops over 129 MB of weights, K 768, Node 20, one core / two, GB/s: int16 products 21 / 36,
 * dequantising to float32 9 / 18, 7-bit x with the relaxed dot product 20 / 32, plain reads 26 / 35. These kernels at
 * 512 x 768 x 3392 on one core: 66 / 63 x 10^9 operations a second on Node 20 / 24.
 */

import { keepLanes, shareStart } from '../as/simd.as';
import {
  LinearArguments,
  LinearSegment,
  PANEL,
  biasOf,
  firstPanel,
  firstRow,
  panelsOf,
  segmentAt,
  storePanel,
  sumLanes4,
  xAt,
  yAt,
  zeroPanel,
} from './arguments.as';

/** Quantises rows of x; a row that holds NaN or infinity gets the scale NaN. */
export function linearQuantise(address: usize, thread: i32, threads: i32): void {
  const args = changetype<LinearArguments>(address);
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    const target = args.quantised + (<usize>row * <usize>args.k << 1);
    store<f32>(args.quantisedScales + (<usize>row << 2), quantiseRow(xAt(args, row), args.k, <f32>args.quantisedRange, target));
  }
}

function quantiseRow(x: usize, k: i32, range: f32, target: usize): f32 {
  const end = x + (<usize>k << 2);
  // Magnitudes compare as whole numbers, and NaN and infinity as the largest.
  let largest = i32x4.splat(0);
  for (let at = x; at < end; at += 16) largest = i32x4.max_u(largest, f32x4.abs(v128.load(at)));
  largest = i32x4.max_u(largest, v128.shuffle<i32>(largest, largest, 2, 3, 0, 1));
  const bits = max(<u32>i32x4.extract_lane(largest, 0), <u32>i32x4.extract_lane(largest, 1));
  const magnitude = reinterpret<f32>(bits);
  const finite = bits < 0x7f800000;
  const inverse = f32x4.splat(finite && magnitude > 1e-30 ? range / magnitude : 0);
  for (; x < end; x += 32, target += 16) {
    const low = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x), inverse)));
    const high = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x, 16), inverse)));
    v128.store(target, i16x8.narrow_i32x4_s(low, high));
  }
  return finite ? magnitude / range : NaN;
}

/** Computes this thread's part of the grid. */
export function linearInt8(address: usize, thread: i32, threads: i32): void {
  const args = changetype<LinearArguments>(address);
  if (thread >= args.rowParts * args.columnParts) return;
  const rowPart = thread / args.columnParts;
  const columnPart = thread % args.columnParts;
  const row = firstRow(args, rowPart);
  const rowEnd = firstRow(args, rowPart + 1);
  let first = firstPanel(args, columnPart);
  let last = firstPanel(args, columnPart + 1);
  for (let s = 0; s < args.segments; s++) {
    const segment = segmentAt(args, s);
    const panels = panelsOf(segment);
    const end = min(last, panels);
    for (let panel = max(first, 0); panel < end; panel += args.blockPanels) {
      const blockEnd = min(panel + args.blockPanels, end);
      for (let r = row; r < rowEnd; r += args.blockRows) {
        for (let p = panel; p < blockEnd; p++) multiply(args, segment, p, r, min(r + args.blockRows, rowEnd));
      }
    }
    first -= panels;
    last -= panels;
  }
}

function multiply(args: LinearArguments, segment: LinearSegment, panel: i32, row: i32, end: i32): void {
  const valid = segment.count - panel * PANEL;
  if (valid <= 0) {
    zeroPanel(args, segment, panel, row, end);
    return;
  }
  const weight = segment.weight + <usize>(panel * PANEL) * <usize>args.weightStride;
  const scales = segment.scales + (<usize>(panel * PANEL) * <usize>args.scaleGroups << 2);
  for (; row + 1 < end; row += 2) {
    const y = yAt(args, segment, row, panel);
    twoRows(args, row, weight, scales, biasOf(segment, panel, 0), y, min(valid, 4));
    twoRows(args, row, weight + 32, scales + 16, biasOf(segment, panel, 4), y + 16, min(valid - 4, 4));
  }
  if (row < end) oneRow(args, segment, panel, row, weight, scales, valid);
}

/** One row times 8 columns: the weights pass by once, in the order they lie. */
function oneRow(args: LinearArguments, segment: LinearSegment, panel: i32, row: i32, weight: usize, scales: usize, valid: i32): void {
  let x = args.quantised + (<usize>row * <usize>args.k << 1);
  const end = x + (<usize>args.k << 1);
  const xScale = v128.load32_splat(args.quantisedScales + (<usize>row << 2));
  let low = biasOf(segment, panel, 0);
  let high = biasOf(segment, panel, 4);
  while (x < end) {
    const groupEnd = min(end, x + (<usize>args.groupSize << 1));
    let c0 = i32x4.splat(0);
    let c1 = i32x4.splat(0);
    let c2 = i32x4.splat(0);
    let c3 = i32x4.splat(0);
    let c4 = i32x4.splat(0);
    let c5 = i32x4.splat(0);
    let c6 = i32x4.splat(0);
    let c7 = i32x4.splat(0);
    for (; x < groupEnd; x += 16, weight += 64) {
      const a = v128.load(x);
      c0 = i32x4.add(c0, i32x4.dot_i16x8_s(a, v128.load8x8_s(weight)));
      c1 = i32x4.add(c1, i32x4.dot_i16x8_s(a, v128.load8x8_s(weight, 8)));
      c2 = i32x4.add(c2, i32x4.dot_i16x8_s(a, v128.load8x8_s(weight, 16)));
      c3 = i32x4.add(c3, i32x4.dot_i16x8_s(a, v128.load8x8_s(weight, 24)));
      c4 = i32x4.add(c4, i32x4.dot_i16x8_s(a, v128.load8x8_s(weight, 32)));
      c5 = i32x4.add(c5, i32x4.dot_i16x8_s(a, v128.load8x8_s(weight, 40)));
      c6 = i32x4.add(c6, i32x4.dot_i16x8_s(a, v128.load8x8_s(weight, 48)));
      c7 = i32x4.add(c7, i32x4.dot_i16x8_s(a, v128.load8x8_s(weight, 56)));
    }
    low = f32x4.add(low, f32x4.mul(columnSums(c0, c1, c2, c3), f32x4.mul(xScale, v128.load(scales))));
    high = f32x4.add(high, f32x4.mul(columnSums(c4, c5, c6, c7), f32x4.mul(xScale, v128.load(scales, 16))));
    scales += 32;
  }
  storePanel(yAt(args, segment, row, panel), low, high, valid);
}

/** Two rows times 4 columns. */
function twoRows(args: LinearArguments, row: i32, weight: usize, scales: usize, bias: v128, y: usize, valid: i32): void {
  const rowBytes = <usize>args.k << 1;
  let x = args.quantised + <usize>row * rowBytes;
  const end = x + rowBytes;
  const scale0 = v128.load32_splat(args.quantisedScales + (<usize>row << 2));
  const scale1 = v128.load32_splat(args.quantisedScales + (<usize>row << 2), 4);
  let y0 = bias;
  let y1 = bias;
  while (x < end) {
    const groupEnd = min(end, x + (<usize>args.groupSize << 1));
    let c0 = i32x4.splat(0);
    let c1 = i32x4.splat(0);
    let c2 = i32x4.splat(0);
    let c3 = i32x4.splat(0);
    let d0 = i32x4.splat(0);
    let d1 = i32x4.splat(0);
    let d2 = i32x4.splat(0);
    let d3 = i32x4.splat(0);
    for (; x < groupEnd; x += 16, weight += 64) {
      const a0 = v128.load(x);
      const a1 = v128.load(x + rowBytes);
      const b0 = v128.load8x8_s(weight);
      c0 = i32x4.add(c0, i32x4.dot_i16x8_s(a0, b0));
      d0 = i32x4.add(d0, i32x4.dot_i16x8_s(a1, b0));
      const b1 = v128.load8x8_s(weight, 8);
      c1 = i32x4.add(c1, i32x4.dot_i16x8_s(a0, b1));
      d1 = i32x4.add(d1, i32x4.dot_i16x8_s(a1, b1));
      const b2 = v128.load8x8_s(weight, 16);
      c2 = i32x4.add(c2, i32x4.dot_i16x8_s(a0, b2));
      d2 = i32x4.add(d2, i32x4.dot_i16x8_s(a1, b2));
      const b3 = v128.load8x8_s(weight, 24);
      c3 = i32x4.add(c3, i32x4.dot_i16x8_s(a0, b3));
      d3 = i32x4.add(d3, i32x4.dot_i16x8_s(a1, b3));
    }
    const scale = v128.load(scales);
    y0 = f32x4.add(y0, f32x4.mul(columnSums(c0, c1, c2, c3), f32x4.mul(scale0, scale)));
    y1 = f32x4.add(y1, f32x4.mul(columnSums(d0, d1, d2, d3), f32x4.mul(scale1, scale)));
    scales += 32;
  }
  v128.store(y, keepLanes(y0, valid));
  v128.store(y + (<usize>args.yStride << 2), keepLanes(y1, valid));
}

/** Sums of the lanes of four columns, in float32: their total may not fit in an int32. */
@inline
function columnSums(a: v128, b: v128, c: v128, d: v128): v128 {
  return sumLanes4(f32x4.convert_i32x4_s(a), f32x4.convert_i32x4_s(b), f32x4.convert_i32x4_s(c), f32x4.convert_i32x4_s(d));
}
