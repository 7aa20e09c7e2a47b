/** Cross-entropy of rows of logits; rows are dealt to the threads. */

import { exp4, keepLanes, maxLanes, shareStart, sumLanes } from '../as/simd.as';

@unmanaged
class CrossEntropyArguments {
  logits: usize;
  logitsStride: i32;
  rows: i32;
  vocabulary: i32;
  targets: usize;
  loss: usize;
  lossStride: i32;
}

/** loss[t] = log(sum exp(logits[t])) - logits[t][targets[t]] and zeros behind it; 0 where the target is no column. */
export function crossEntropyRows(address: usize, thread: i32, threads: i32): void {
  const args = changetype<CrossEntropyArguments>(address);
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    const logits = args.logits + (<usize>row * <usize>args.logitsStride << 2);
    const loss = args.loss + (<usize>row * <usize>args.lossStride << 2);
    const target = load<u32>(args.targets + (<usize>row << 2));
    memory.fill(loss, 0, 64);
    if (target >= <u32>args.vocabulary) continue;
    store<f32>(loss, logSumExp(logits, args.vocabulary) - load<f32>(logits + (<usize>target << 2)));
  }
}

/** log of the sum of exp over `count` floats; NaN where one of them is not finite. */
function logSumExp(logits: usize, count: i32): f32 {
  const whole = logits + (<usize>(count & ~3) << 2);
  const rest = count & 3;
  let largest4 = v128.load32_splat(logits);
  let finite = f32x4.splat(0);
  for (let at = logits; at < whole; at += 16) {
    const value = v128.load(at);
    largest4 = f32x4.pmax(largest4, value);
    finite = f32x4.add(finite, f32x4.mul(value, f32x4.splat(0)));
  }
  let largest = maxLanes(largest4);
  let check = sumLanes(finite);
  for (let i = 0; i < rest; i++) {
    const value = load<f32>(whole + (<usize>i << 2));
    largest = max(largest, value);
    check += value * 0;
  }
  const shift = f32x4.splat(largest);
  // Sums of 16 lanes each, so that 50,000 terms lose no digits.
  let total: f64 = 0;
  for (let at = logits; at < whole; ) {
    const end = min(at + 4096, whole);
    let sum = f32x4.splat(0);
    for (; at < end; at += 16) sum = f32x4.add(sum, exp4(f32x4.sub(v128.load(at), shift)));
    total += <f64>sumLanes(sum);
  }
  if (rest > 0) total += <f64>sumLanes(keepLanes(exp4(f32x4.sub(v128.load(whole), shift)), rest));
  return <f32>(<f64>largest + log(total)) + check;
}

/** Natural logarithm of a positive, finite, normal number: 2 atanh of its mantissa's part, relative error below 1e-12. */
function log(x: f64): f64 {
  const bits = reinterpret<u64>(x);
  const exponent = <f64>(<i64>(bits >> 52) - 1023);
  const mantissa = reinterpret<f64>((bits & 0x000fffffffffffff) | 0x3ff0000000000000);
  const s = (mantissa - 1) / (mantissa + 1);
  const square = s * s;
  let sum: f64 = 0;
  for (let odd: f64 = 23; odd > 0; odd -= 2) sum = sum * square + 1 / odd;
  return exponent * 0.6931471805599453 + 2 * s * sum;
}
