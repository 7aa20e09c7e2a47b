/** Sum of squares in float64, a share for each thread, added in thread order. Padding of the buffer is zero. */

import { shareStart } from '../as/simd.as';

@unmanaged
class SquareSumArguments {
  x: usize;
  count: i32;
  sums: usize;
}

export function squareSum(address: usize, thread: i32, threads: i32): void {
  const args = changetype<SquareSumArguments>(address);
  const end = shareStart(args.count, 64, thread + 1, threads);
  let sum: f64 = 0;
  for (let i = shareStart(args.count, 64, thread, threads); i < end; i++) {
    const value = <f64>load<f32>(args.x + (<usize>i << 2));
    sum += value * value;
  }
  store<f64>(args.sums + (<usize>thread << 3), sum);
}

@unmanaged
class SquareSumTotalArguments {
  sums: usize;
  /** 0: starts at zero. */
  before: usize;
  y: usize;
}

export function squareSumTotal(address: usize, thread: i32, threads: i32): void {
  if (thread != 0) return;
  const args = changetype<SquareSumTotalArguments>(address);
  let sum: f64 = args.before != 0 ? <f64>load<f32>(args.before) : 0;
  for (let t = 0; t < threads; t++) sum += load<f64>(args.sums + (<usize>t << 3));
  store<f32>(args.y, <f32>sum);
}
