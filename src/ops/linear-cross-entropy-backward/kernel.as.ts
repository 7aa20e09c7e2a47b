/** Cross-entropy of rows of logits, which become their gradients in place; rows are dealt to the threads. */

import { exp4, keepLanes, log1p4, maxLanes, padded, shareStart, sumLanes } from '../as/simd.as';

@unmanaged
class CrossEntropyBackwardArguments {
  logits: usize;
  logitsStride: i32;
  rows: i32;
  vocabulary: i32;
  targets: usize;
  loss: usize;
  lossStride: i32;
  dLoss: usize;
  dLossStride: i32;
}

/** Bytes of logits whose exponentials are summed in float32: 50,000 terms lose no digits. */
const SUM_BYTES: usize = 4096;

/**
 * loss[t] as `cross_entropy_rows`, and logits[t] = (softmax(logits[t]) - onehot(targets[t])) * dLoss[t] with zeros in
 * the padding; all zeros where the target is no column.
 */
export function crossEntropyRowsBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<CrossEntropyBackwardArguments>(address);
  const end = shareStart(args.rows, 1, thread + 1, threads);
  const bytes = <usize>padded(args.vocabulary) << 2;
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    const logits = args.logits + (<usize>row * <usize>args.logitsStride << 2);
    const loss = args.loss + (<usize>row * <usize>args.lossStride << 2);
    const target = load<u32>(args.targets + (<usize>row << 2));
    memory.fill(loss, 0, 64);
    if (target >= <u32>args.vocabulary) {
      memory.fill(logits, 0, bytes);
      continue;
    }
    const scale = load<f32>(args.dLoss + (<usize>row * <usize>args.dLossStride << 2));
    store<f32>(loss, rowBackward(logits, args.vocabulary, target, scale));
  }
}

/** Turns one row into its gradient and returns its loss; both are NaN where a logit is not finite. */
function rowBackward(logits: usize, count: i32, target: u32, scale: f32): f32 {
  const end = logits + (<usize>padded(count) << 2);
  const whole = logits + (<usize>(count & ~3) << 2);
  const atTarget = logits + (<usize>target << 2);
  const targetLogit = load<f32>(atTarget);
  let largest4 = f32x4.splat(targetLogit);
  let finite = f32x4.splat(0);
  for (let at = logits; at < whole; at += 16) {
    const value = v128.load(at);
    largest4 = f32x4.pmax(largest4, value);
    finite = f32x4.add(finite, f32x4.mul(value, f32x4.splat(0)));
  }
  for (let at = whole; at < logits + (<usize>count << 2); at += 4) {
    const value = v128.load32_splat(at);
    largest4 = f32x4.pmax(largest4, value);
    finite = f32x4.add(finite, f32x4.mul(value, f32x4.splat(0)));
  }
  const largest = maxLanes(largest4);
  const check = sumLanes(finite);
  const shift = f32x4.splat(largest);
  let total: f64 = 0;
  let at = logits;
  while (at < whole) {
    const stop = min(at + SUM_BYTES, whole);
    let sum = f32x4.splat(0);
    for (; at < stop; at += 16) {
      const value = exp4(f32x4.sub(v128.load(at), shift));
      v128.store(at, value);
      sum = f32x4.add(sum, value);
    }
    total += <f64>sumLanes(sum);
  }
  for (let lanes = count & 3; at < end; at += 16, lanes = 0) {
    const value = keepLanes(exp4(f32x4.sub(v128.load(at), shift)), lanes);
    v128.store(at, value);
    total += <f64>sumLanes(value);
  }
  const factor = f32x4.splat(<f32>(<f64>scale / total) + check);
  for (at = logits; at < end; at += 16) v128.store(at, f32x4.mul(v128.load(at), factor));
  store<f32>(atTarget, load<f32>(atTarget) - scale);
  return <f32>(<f64>largest - <f64>targetLogit + log(total)) + check;
}

/** Natural logarithm of a finite number from 1 on. */
@inline
function log(x: f64): f64 {
  const bits = reinterpret<u64>(x);
  const exponent = <f64>(<i64>(bits >> 52) - 1023);
  const mantissa = reinterpret<f64>((bits & 0x000fffffffffffff) | 0x3ff0000000000000);
  return exponent * 0.6931471805599453 + <f64>f32x4.extract_lane(log1p4(f32x4.splat(<f32>(mantissa - 1))), 0);
}

@unmanaged
class DistillArguments {
  /** Gradients of the student's logits, as `crossEntropyRowsBackward` leaves them. */
  logits: usize;
  /** Logits of the teacher; overwritten. */
  taught: usize;
  stride: i32;
  rows: i32;
  vocabulary: i32;
  targets: usize;
  dLoss: usize;
  dLossStride: i32;
  share: f32;
}

/** logits[t] += share * dLoss[t] * (onehot(targets[t]) - softmax(taught[t])); nothing where the target is no column. */
export function distillRowsBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<DistillArguments>(address);
  const end = shareStart(args.rows, 1, thread + 1, threads);
  const bytes = <usize>padded(args.vocabulary) << 2;
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    const target = load<u32>(args.targets + (<usize>row << 2));
    if (target >= <u32>args.vocabulary) continue;
    const logits = args.logits + (<usize>row * <usize>args.stride << 2);
    const taught = args.taught + (<usize>row * <usize>args.stride << 2);
    const scale = -args.share * load<f32>(args.dLoss + (<usize>row * <usize>args.dLossStride << 2));
    rowBackward(taught, args.vocabulary, target, scale);
    for (let i: usize = 0; i < bytes; i += 16) v128.store(logits + i, f32x4.add(v128.load(logits + i), v128.load(taught + i)));
  }
}
