/**
 * Vector helpers of all CPU kernels: four float32 lanes at a time, relaxed multiply-add where the module is compiled
 * with it, and elementary functions with their largest relative error over the range they are used in.
 */

/** Columns of the last axis are padded to a multiple of this many floats. */
export const COLUMN_ALIGN: i32 = 16;

/** a * b + c: one rounding where relaxed SIMD fuses, two otherwise. */
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

/** Columns rounded up to the padded width. */
@inline
export function padded(columns: i32): i32 {
  return (columns + (COLUMN_ALIGN - 1)) & ~(COLUMN_ALIGN - 1);
}

/** Sum of the four lanes, in a fixed order. */
@inline
export function sumLanes(v: v128): f32 {
  const pairs = f32x4.add(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return f32x4.extract_lane(pairs, 0) + f32x4.extract_lane(pairs, 1);
}

/** Largest of the four lanes. */
@inline
export function maxLanes(v: v128): f32 {
  const pairs = f32x4.max(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return max(f32x4.extract_lane(pairs, 0), f32x4.extract_lane(pairs, 1));
}

/** exp(x), relative error below 2e-7; x is held to [-87.33, 88.37], so the result is finite and above zero. */
@inline
export function exp4(x: v128): v128 {
  x = f32x4.min(f32x4.max(x, f32x4.splat(-87.33)), f32x4.splat(88.37));
  const n = f32x4.nearest(f32x4.mul(x, f32x4.splat(1.44269504)));
  let r = madd(n, f32x4.splat(-0.693359375), x);
  r = madd(n, f32x4.splat(2.12194440e-4), r);
  let p = madd(f32x4.splat(1.9875691500e-4), r, f32x4.splat(1.3981999507e-3));
  p = madd(p, r, f32x4.splat(8.3334519073e-3));
  p = madd(p, r, f32x4.splat(4.1665795894e-2));
  p = madd(p, r, f32x4.splat(1.6666665459e-1));
  p = madd(p, r, f32x4.splat(0.5));
  p = madd(p, f32x4.mul(r, r), f32x4.add(r, f32x4.splat(1)));
  const power = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), i32x4.splat(127)), 23);
  return f32x4.mul(p, power);
}

/** Of `onePlusExp4`: bounds, -log2(e), 1.5 * 2^23 (adding it rounds), 1, and 2^f on [-1/2, 1/2] within 8e-8. */
const SIGMOID: usize = memory.data<f32>(
  [87, -87, -1.44269504, 12582912, 1, 0.0013276471854, 0.0096755415410, 0.0555071327573, 0.2402211972005, 0.6931469670623, 1.0000000716554],
  16,
);

/**
 * 1 + exp(-x), relative error below 1e-6, below 1e-7 where |x| < 1. A third of the time of `exp4`: engines build a
 * vector constant anew wherever it is used, so these are loaded; and pmin and pmax are one instruction.
 */
@inline
function onePlusExp4(x: v128): v128 {
  const z = f32x4.pmin(f32x4.pmax(x, v128.load32_splat(SIGMOID, 4)), v128.load32_splat(SIGMOID));
  const scale = v128.load32_splat(SIGMOID, 8);
  const shift = v128.load32_splat(SIGMOID, 12);
  const n = madd(z, scale, shift);
  const f = madd(z, scale, f32x4.sub(shift, n));
  let p = madd(v128.load32_splat(SIGMOID, 20), f, v128.load32_splat(SIGMOID, 24));
  p = madd(p, f, v128.load32_splat(SIGMOID, 28));
  p = madd(p, f, v128.load32_splat(SIGMOID, 32));
  p = madd(p, f, v128.load32_splat(SIGMOID, 36));
  p = madd(p, f, v128.load32_splat(SIGMOID, 40));
  // The low bits of n are the exponent.
  return f32x4.add(v128.load32_splat(SIGMOID, 16), i32x4.add(p, i32x4.shl(n, 23)));
}

/** 1 / (1 + exp(-x)). */
@inline
export function sigmoid4(x: v128): v128 {
  return f32x4.div(v128.load32_splat(SIGMOID, 16), onePlusExp4(x));
}

/** x / (1 + exp(-x)). */
@inline
export function silu4(x: v128): v128 {
  return f32x4.div(x, onePlusExp4(x));
}

/** The slope of `silu4`: s (1 + x (1 - s)), s = 1 / (1 + exp(-x)). */
@inline
export function siluSlope4(x: v128): v128 {
  const s = sigmoid4(x);
  const one = v128.load32_splat(SIGMOID, 16);
  return f32x4.mul(s, madd(x, f32x4.sub(one, s), one));
}

/** log(1 + u) for u in [0, 1], relative error below 3e-7: 2 atanh(u / (2 + u)). */
@inline
export function log1p4(u: v128): v128 {
  const s = f32x4.div(u, f32x4.add(f32x4.splat(2), u));
  const t = f32x4.mul(s, s);
  let p = madd(t, f32x4.splat(0.06666667), f32x4.splat(0.07692308));
  p = madd(p, t, f32x4.splat(0.09090909));
  p = madd(p, t, f32x4.splat(0.11111111));
  p = madd(p, t, f32x4.splat(0.14285714));
  p = madd(p, t, f32x4.splat(0.2));
  p = madd(p, t, f32x4.splat(0.33333333));
  p = madd(p, t, f32x4.splat(1));
  return f32x4.mul(f32x4.add(s, s), p);
}

/** log(1 + exp(x)), the identity above 20 as the original computes it. */
@inline
export function softplus4(x: v128): v128 {
  const soft = f32x4.add(f32x4.max(x, f32x4.splat(0)), log1p4(exp4(f32x4.neg(f32x4.abs(x)))));
  return v128.bitselect(x, soft, f32x4.gt(x, f32x4.splat(20)));
}

/** Lanes 0 .. count - 1 of x, zero in the others; count is 0 .. 4. */
@inline
export function keepLanes(x: v128, count: i32): v128 {
  return v128.and(x, i32x4.gt_s(i32x4.splat(count), i32x4(0, 1, 2, 3)));
}

/** First of `thread`'s share when `total` items are dealt to `threads` in runs of whole multiples of `unit`. */
@inline
export function shareStart(total: i32, unit: i32, thread: i32, threads: i32): i32 {
  const units = (total + unit - 1) / unit;
  return min(total, <i32>((<i64>units * thread) / threads) * unit);
}
