/**
 * Stored weights as float32. bfloat16 and half lie as [panel of 8 rows][column][8] (rows
 * 0, 4, 1, 5, 2, 6, 3, 7), int8 as [panel][column / 8][8][8]
 * with scales [panel][group][8]; float32 is row-major.
 *
 * The panels make a matrix-vector product one ascending stream: rows read side by side, two or four at a time, reached
 * 7 to 13 GB/s a core at 768 columns where one stream reached 20 to 26. float32 stays row-major because BLAS reads it so.
 */

import { BF16, F16, F32, PANEL } from './arguments.as';

/** Bytes of one stored element. */
@inline
export function elementBytes(dtype: i32): usize {
  return dtype == F32 ? 4 : dtype == BF16 || dtype == F16 ? 2 : 1;
}

/** What `evens` and `odds` of halves must be multiplied by. */
export const HALF_SCALE: f32 = 5.192296858534828e33;

/**
 * Rows 0 to 3 of one column of a panel, of eight values loaded together. T names the dtype: u16 is bfloat16, i16 half.
 * Halves must be finite: exponent and mantissa moved to float32's place read as the value times 2^-112.
 */
@inline
export function evens<T>(values: v128): v128 {
  if (!isSigned<T>()) return i32x4.shl(values, 16);
  return v128.and(i32x4.shr_s(i32x4.shl(values, 16), 3), i32x4.splat(<i32>0x8fffe000));
}

/** Rows 4 to 7, as `evens`. */
@inline
export function odds<T>(values: v128): v128 {
  if (!isSigned<T>()) return v128.and(values, i32x4.splat(<i32>0xffff0000));
  return v128.and(i32x4.shr_s(values, 3), i32x4.splat(<i32>0x8fffe000));
}

/** Brings the result of `evens` or `odds` to its value. */
@inline
export function scaled<T>(values: v128): v128 {
  if (!isSigned<T>()) return values;
  return f32x4.mul(values, f32x4.splat(HALF_SCALE));
}

/** One value at `source`. */
@inline
function half1<T>(source: usize): f32 {
  if (!isSigned<T>()) return reinterpret<f32>(<u32>load<u16>(source) << 16);
  return reinterpret<f32>((<u32>(<i32>load<i16>(source) << 13)) & 0x8fffe000) * HALF_SCALE;
}

/** Where a row's value lies among the eight of a column: evens are rows 0 to 3, odds 4 to 7. */
@inline
function halfPlace(lane: usize): usize {
  return (lane < 4 ? lane << 1 : (lane << 1) - 7) << 1;
}

/** Columns 0 .. k - 1 (a multiple of 16) of stored row `row` of the matrix at `weight`, to `target`. */
export function dequantiseRow(dtype: i32, weight: usize, stride: i32, row: i32, scales: usize, groupSize: i32, scaleGroups: i32, k: i32, target: usize): void {
  const columns = <usize>k;
  const lane = <usize>(row & (PANEL - 1));
  const panel = weight + <usize>(row - <i32>lane) * <usize>stride * elementBytes(dtype);
  if (dtype == F32) {
    memory.copy(target, panel + (lane * <usize>stride << 2), columns << 2);
  } else if (dtype == BF16) {
    for (let c: usize = 0; c < columns; c++) store<f32>(target + (c << 2), half1<u16>(panel + (c << 4) + halfPlace(lane)));
  } else if (dtype == F16) {
    for (let c: usize = 0; c < columns; c++) store<f32>(target + (c << 2), half1<i16>(panel + (c << 4) + halfPlace(lane)));
  } else {
    dequantiseInt8Row(panel + (lane << 3), scales + (<usize>(row - <i32>lane) * <usize>scaleGroups + lane << 2), groupSize, k, target);
  }
}

/** One row of a panel: 8 values every 64 bytes, a scale every 32. */
function dequantiseInt8Row(source: usize, scales: usize, groupSize: i32, k: i32, target: usize): void {
  for (let first = 0; first < k; first += groupSize, scales += 32) {
    const scale = v128.load32_splat(scales);
    const end = min(first + groupSize, k);
    for (let c = first; c < end; c += 8, source += 64, target += 32) {
      const wide = v128.load8x8_s(source);
      v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(wide)), scale));
      v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(wide)), scale), 16);
    }
  }
}

/** A panel of halves as eight float32 rows, `rowBytes` apart. */
export function halfPanelToRows<T>(source: usize, k: i32, target: usize, rowBytes: usize): void {
  for (let c = 0; c < k; c += 4, source += 64, target += 16) {
    const v0 = v128.load(source);
    const v1 = v128.load(source, 16);
    const v2 = v128.load(source, 32);
    const v3 = v128.load(source, 48);
    transpose(scaled<T>(evens<T>(v0)), scaled<T>(evens<T>(v1)), scaled<T>(evens<T>(v2)), scaled<T>(evens<T>(v3)), target, rowBytes);
    const rest = target + 4 * rowBytes;
    transpose(scaled<T>(odds<T>(v0)), scaled<T>(odds<T>(v1)), scaled<T>(odds<T>(v2)), scaled<T>(odds<T>(v3)), rest, rowBytes);
  }
}

/** A panel of int8 as eight float32 rows, `rowBytes` apart. */
export function int8PanelToRows(source: usize, scales: usize, groupSize: i32, k: i32, target: usize, rowBytes: usize): void {
  for (let lane: usize = 0; lane < 8; lane++) {
    dequantiseInt8Row(source + (lane << 3), scales + (lane << 2), groupSize, k, target + lane * rowBytes);
  }
}

/** Stores the transpose of four vectors, `step` bytes from row to row. */
@inline
export function transpose(a: v128, b: v128, c: v128, d: v128, target: usize, step: usize): void {
  const ab0 = v128.shuffle<f32>(a, b, 0, 4, 1, 5);
  const ab1 = v128.shuffle<f32>(a, b, 2, 6, 3, 7);
  const cd0 = v128.shuffle<f32>(c, d, 0, 4, 1, 5);
  const cd1 = v128.shuffle<f32>(c, d, 2, 6, 3, 7);
  v128.store(target, v128.shuffle<f32>(ab0, cd0, 0, 1, 4, 5));
  v128.store(target + step, v128.shuffle<f32>(ab0, cd0, 2, 3, 6, 7));
  v128.store(target + 2 * step, v128.shuffle<f32>(ab1, cd1, 0, 1, 4, 5));
  v128.store(target + 3 * step, v128.shuffle<f32>(ab1, cd1, 2, 3, 6, 7));
}

/**
 * Reads a line of memory every 64 bytes of 8 rows, row after row: one ascending stream, which hardware fetches ahead
 * of. Kernels that then read the rows side by side find them in the cache. Atomic, because other loads would be dropped.
 */
export function touchRows(first: usize, rows: usize, rowBytes: usize, bytes: usize): void {
  for (let row: usize = 0; row < rows; row++, first += rowBytes) {
    for (let at = first; at < first + bytes; at += 64) atomic.load<i32>(at);
  }
}
