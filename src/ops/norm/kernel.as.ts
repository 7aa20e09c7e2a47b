/** Norm over the columns of each row, with an optional residual added first; rows are dealt to the threads. */

import { keepLanes, madd, padded, shareStart, sumLanes } from '../as/simd.as';

@unmanaged
class NormArguments {
  x: usize;
  xStride: i32;
  /** 0: no residual, nothing is written to `sum`. */
  residual: usize;
  residualStride: i32;
  sum: usize;
  sumStride: i32;
  y: usize;
  yStride: i32;
  weight: usize;
  /** 0: none. */
  bias: usize;
  rows: i32;
  width: i32;
  /** 1: layer norm, 0: root mean square. */
  center: i32;
  eps: f32;
}

/** sum = x + residual (when there is one); y = norm(sum). `sum` may be `residual` itself. */
export function norm(address: usize, thread: i32, threads: i32): void {
  const args = changetype<NormArguments>(address);
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) normRow(args, row);
}

function normRow(args: NormArguments, row: i32): void {
  const width = args.width;
  const bytes = <usize>padded(width) << 2;
  let source = args.x + (<usize>(row * args.xStride) << 2);
  let total = f32x4.splat(0);
  if (args.residual != 0) {
    const residual = args.residual + (<usize>(row * args.residualStride) << 2);
    const sum = args.sum + (<usize>(row * args.sumStride) << 2);
    for (let i: usize = 0; i < bytes; i += 16) v128.store(sum + i, f32x4.add(v128.load(source + i), v128.load(residual + i)));
    source = sum;
  }
  let mean: f32 = 0;
  if (args.center != 0) {
    for (let i: usize = 0; i < bytes; i += 16) total = f32x4.add(total, v128.load(source + i));
    mean = sumLanes(total) / <f32>width;
  }
  const mean4 = f32x4.splat(mean);
  let square0 = f32x4.splat(0);
  let square1 = f32x4.splat(0);
  const whole = <usize>(width & ~7) << 2;
  let i: usize = 0;
  for (; i < whole; i += 32) {
    const a = f32x4.sub(v128.load(source + i), mean4);
    const b = f32x4.sub(v128.load(source + i, 16), mean4);
    square0 = madd(a, a, square0);
    square1 = madd(b, b, square1);
  }
  for (let column = <i32>(i >> 2); column < width; column += 4, i += 16) {
    const a = keepLanes(f32x4.sub(v128.load(source + i), mean4), width - column);
    square0 = madd(a, a, square0);
  }
  const scale = f32x4.splat(1 / sqrt<f32>(sumLanes(f32x4.add(square0, square1)) / <f32>width + args.eps));
  const y = args.y + (<usize>(row * args.yStride) << 2);
  const weight = args.weight;
  const bias = args.bias;
  for (i = 0; i < bytes; i += 16) {
    let value = f32x4.mul(f32x4.mul(f32x4.sub(v128.load(source + i), mean4), scale), v128.load(weight + i));
    if (bias != 0) value = f32x4.add(value, v128.load(bias + i));
    v128.store(y + i, keepLanes(value, width - <i32>(i >> 2)));
  }
}
