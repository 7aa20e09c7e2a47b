/**
 * Stored weights as float32. bfloat16 and half lie as [panel of 8 rows][column][8], int8 as [panel][column / 8][8][8]
 * with scales [panel][group][8]; float32 is row-major.
 *
 * The panels make a matrix-vector product one ascending stream: rows read side by side, two or four at a time, reached
 * 7 to 13 GB/s a core here where one stream reached 20 to 26. float32 stays row-major because BLAS reads it so.
 */

import { BF16, F16, F32, PANEL } from './arguments.as';

/** Bytes of one stored element. */
@inline
export function elementBytes(dtype: i32): usize {
  return dtype == F32 ? 4 : dtype == BF16 || dtype == F16 ? 2 : 1;
}

/**
 * Four values at `source`; T names the dtype by how it widens: u16 is bfloat16, i16 half.
 * Halves must be finite: exponent and mantissa moved to float32's place read as the value times 2^-112.
 */
@inline
export function half4<T>(source: usize): v128 {
  if (!isSigned<T>()) return i32x4.shl(v128.load16x4_u(source), 16);
  const bits = v128.and(i32x4.shl(v128.load16x4_s(source), 13), i32x4.splat(<i32>0x8fffe000));
  return f32x4.mul(bits, f32x4.splat(5.192296858534828e33));
}

/** One value at `source`, as `half4`. */
@inline
function half1<T>(source: usize): f32 {
  if (!isSigned<T>()) return reinterpret<f32>(<u32>load<u16>(source) << 16);
  return reinterpret<f32>((<u32>(<i32>load<i16>(source) << 13)) & 0x8fffe000) * 5.192296858534828e33;
}

/** Columns 0 .. k - 1 (a multiple of 16) of stored row `row` of the matrix at `weight`, to `target`. */
export function dequantiseRow(dtype: i32, weight: usize, stride: i32, row: i32, scales: usize, groupSize: i32, scaleGroups: i32, k: i32, target: usize): void {
  const columns = <usize>k;
  const lane = <usize>(row & (PANEL - 1));
  const panel = weight + <usize>(row - <i32>lane) * <usize>stride * elementBytes(dtype);
  if (dtype == F32) {
    memory.copy(target, panel + (lane * <usize>stride << 2), columns << 2);
  } else if (dtype == BF16) {
    for (let c: usize = 0; c < columns; c++) store<f32>(target + (c << 2), half1<u16>(panel + (c << 4) + (lane << 1)));
  } else if (dtype == F16) {
    for (let c: usize = 0; c < columns; c++) store<f32>(target + (c << 2), half1<i16>(panel + (c << 4) + (lane << 1)));
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
    transpose(half4<T>(source), half4<T>(source + 16), half4<T>(source + 32), half4<T>(source + 48), target, rowBytes);
    transpose(half4<T>(source + 8), half4<T>(source + 24), half4<T>(source + 40), half4<T>(source + 56), target + 4 * rowBytes, rowBytes);
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
