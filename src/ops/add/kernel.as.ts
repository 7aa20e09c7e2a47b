/** a + b of each row; y may be a. */

import { padded, shareStart } from '../as/simd.as';

@unmanaged
class AddArguments {
  a: usize;
  aStride: i32;
  b: usize;
  bStride: i32;
  y: usize;
  yStride: i32;
  rows: i32;
  width: i32;
}

export function add(address: usize, thread: i32, threads: i32): void {
  const args = changetype<AddArguments>(address);
  const bytes = <usize>padded(args.width) << 2;
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    const a = args.a + (<usize>(row * args.aStride) << 2);
    const b = args.b + (<usize>(row * args.bStride) << 2);
    const y = args.y + (<usize>(row * args.yStride) << 2);
    for (let i: usize = 0; i < bytes; i += 16) v128.store(y + i, f32x4.add(v128.load(a + i), v128.load(b + i)));
  }
}
