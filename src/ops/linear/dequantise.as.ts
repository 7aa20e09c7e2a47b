/** Rows of a stored matrix as float32: four at a time from bfloat16, half and int8. */

/** The order of `WEIGHT_DTYPES` in `weight-dtype.ts`. */
export const F32: i32 = 0;
export const BF16: i32 = 1;
export const F16: i32 = 2;
export const I8: i32 = 3;

/** Bytes of one stored element. */
@inline
export function elementBytes(dtype: i32): usize {
  return dtype == F32 ? 4 : dtype == I8 ? 1 : 2;
}

/** Four bfloat16 at `source`. */
@inline
export function bf16x4(source: usize): v128 {
  return i32x4.shl(v128.load16x4_u(source), 16);
}

/**
 * Four halves at `source`, finite ones only: exponent and mantissa moved to float32's place read as the value times
 * 2^-112, subnormals included.
 */
@inline
export function f16x4(source: usize): v128 {
  const bits = v128.and(i32x4.shl(v128.load16x4_s(source), 13), i32x4.splat(<i32>0x8fffe000));
  return f32x4.mul(bits, f32x4.splat(5.192296858534828e33));
}

/** `k` (a multiple of 16) values of one row, from its first column on, to float32 at `target`. */
export function dequantiseRow(dtype: i32, source: usize, scales: usize, groupSize: i32, k: i32, target: usize): void {
  const end = target + (<usize>k << 2);
  if (dtype == F32) {
    memory.copy(target, source, <usize>k << 2);
  } else if (dtype == BF16) {
    for (; target < end; target += 32, source += 16) {
      v128.store(target, bf16x4(source));
      v128.store(target, bf16x4(source + 8), 16);
    }
  } else if (dtype == F16) {
    for (; target < end; target += 32, source += 16) {
      v128.store(target, f16x4(source));
      v128.store(target, f16x4(source + 8), 16);
    }
  } else {
    const groupBytes = <usize>groupSize << 2;
    while (target < end) {
      const groupEnd = min(target + groupBytes, end);
      const scale = v128.load32_splat(scales);
      for (; target < groupEnd; target += 32, source += 8) {
        const wide = v128.load8x8_s(source);
        v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(wide)), scale));
        v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(wide)), scale), 16);
      }
      scales += 4;
    }
  }
}
