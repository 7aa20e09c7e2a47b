/** Puts the gradients of picked rows back; all rows of dx are dealt to the threads. */

import { padded, shareStart } from '../as/simd.as';

@unmanaged
class LastRowsBackwardArguments {
  dy: usize;
  dyStride: i32;
  dx: usize;
  dxStride: i32;
  /** 0: every sequence is full. */
  lengths: usize;
  rows: i32;
  length: i32;
  count: i32;
  width: i32;
}

export function lastRowsBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<LastRowsBackwardArguments>(address);
  const bytes = <usize>padded(args.width) << 2;
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    const sequence = row / args.length;
    const real = args.lengths != 0 ? load<i32>(args.lengths + (<usize>sequence << 2)) : args.length;
    const picked = (row % args.length) - (real - args.count);
    const dx = args.dx + (<usize>(row * args.dxStride) << 2);
    if (picked < 0 || picked >= args.count) memory.fill(dx, 0, bytes);
    else memory.copy(dx, args.dy + (<usize>((sequence * args.count + picked) * args.dyStride) << 2), bytes);
  }
}
