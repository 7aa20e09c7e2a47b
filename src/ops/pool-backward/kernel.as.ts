/** Spreads the gradient of a pooled row over its tokens; rows of dx are dealt to the threads. */

import { padded, shareStart } from '../as/simd.as';

@unmanaged
class PoolBackwardArguments {
  dy: usize;
  dyStride: i32;
  dx: usize;
  dxStride: i32;
  batch: i32;
  tokens: i32;
  width: i32;
  average: i32;
}

export function poolBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<PoolBackwardArguments>(address);
  const tokens = args.tokens;
  const bytes = <usize>padded(args.width) << 2;
  const rows = args.batch * tokens;
  const end = shareStart(rows, 1, thread + 1, threads);
  for (let row = shareStart(rows, 1, thread, threads); row < end; row++) {
    const last = row % tokens == tokens - 1;
    const share: f32 = args.average != 0 ? (last ? 0 : 1 / <f32>(tokens - 1)) : last ? 1 : 0;
    const share4 = f32x4.splat(share);
    const dy = args.dy + (<usize>((row / tokens) * args.dyStride) << 2);
    const dx = args.dx + (<usize>(row * args.dxStride) << 2);
    for (let i: usize = 0; i < bytes; i += 16) v128.store(dx + i, f32x4.mul(share4, v128.load(dy + i)));
  }
}
