/** Copies the last real rows of each sequence; rows before the first are clamped to it. */

import { padded, shareStart } from '../as/simd.as';

@unmanaged
class LastRowsArguments {
  x: usize;
  xStride: i32;
  y: usize;
  yStride: i32;
  /** 0: every sequence is full. */
  lengths: usize;
  batch: i32;
  length: i32;
  count: i32;
  width: i32;
}

export function lastRows(address: usize, thread: i32, threads: i32): void {
  const args = changetype<LastRowsArguments>(address);
  const count = args.count;
  const rows = args.batch * count;
  const end = shareStart(rows, 1, thread + 1, threads);
  for (let row = shareStart(rows, 1, thread, threads); row < end; row++) {
    const sequence = row / count;
    const real = args.lengths != 0 ? load<i32>(args.lengths + (<usize>sequence << 2)) : args.length;
    const from = sequence * args.length + max(0, real - count + (row % count));
    memory.copy(
      args.y + (<usize>(row * args.yStride) << 2),
      args.x + (<usize>(from * args.xStride) << 2),
      <usize>padded(args.width) << 2,
    );
  }
}
