/** The linear map: y = x . weight^T + bias on row segments of a weight. */

import { madd, padded, shareStart, sumLanes } from '../as/simd.as';
import { dequantiseRow, elementBytes } from './dequantise.as';

@unmanaged
export class LinearArguments {
  x: usize;
  xStride: i32;
  rows: i32;
  /** Columns of x, rounded up to 16. */
  k: i32;
  y: usize;
  yStride: i32;
  dtype: i32;
  /** Elements from one row of the weight to the next. */
  weightStride: i32;
  /** Columns that share an int8 scale, and scales of a row. */
  groupSize: i32;
  scaleGroups: i32;
  /** Every thread has `scratchBytes` of its own. */
  scratch: usize;
  scratchBytes: usize;
  /** How many `LinearSegment`s follow. */
  segments: i32;
}

@unmanaged
export class LinearSegment {
  weight: usize;
  scales: usize;
  /** 0: none. */
  bias: usize;
  count: i32;
  /** First column of y. */
  column: i32;
}

export function linear(address: usize, thread: i32, threads: i32): void {
  const args = changetype<LinearArguments>(address);
  const scratch = args.scratch + <usize>thread * args.scratchBytes;
  const k = <usize>args.k << 2;
  for (let s = 0; s < args.segments; s++) {
    const segment = changetype<LinearSegment>(address + offsetof<LinearArguments>() + <usize>s * offsetof<LinearSegment>());
    const end = shareStart(segment.count, 1, thread + 1, threads);
    for (let i = shareStart(segment.count, 1, thread, threads); i < end; i++) {
      const weight = segment.weight + <usize>i * <usize>args.weightStride * elementBytes(args.dtype);
      dequantiseRow(args.dtype, weight, segment.scales + <usize>(i * args.scaleGroups) * 4, args.groupSize, args.k, scratch);
      const bias: f32 = segment.bias != 0 ? load<f32>(segment.bias + (<usize>i << 2)) : 0;
      for (let row = 0; row < args.rows; row++) {
        const x = args.x + <usize>row * <usize>args.xStride * 4;
        let sum = f32x4.splat(0);
        for (let c: usize = 0; c < k; c += 16) sum = madd(v128.load(x + c), v128.load(scratch + c), sum);
        store<f32>(args.y + (<usize>row * <usize>args.yStride + <usize>(segment.column + i)) * 4, sumLanes(sum) + bias);
      }
    }
    if (thread == 0) zeroPads(args, segment);
  }
}

function zeroPads(args: LinearArguments, segment: LinearSegment): void {
  const bytes = <usize>(padded(segment.count) - segment.count) << 2;
  for (let row = 0; row < args.rows; row++) {
    memory.fill(args.y + (<usize>row * <usize>args.yStride + <usize>(segment.column + segment.count)) * 4, 0, bytes);
  }
}
