/** The last token of each image, or the mean of the others; images are dealt to the threads. */

import { padded, shareStart } from '../as/simd.as';

@unmanaged
class PoolArguments {
  x: usize;
  xStride: i32;
  y: usize;
  yStride: i32;
  batch: i32;
  tokens: i32;
  width: i32;
  average: i32;
}

export function pool(address: usize, thread: i32, threads: i32): void {
  const args = changetype<PoolArguments>(address);
  const bytes = <usize>padded(args.width) << 2;
  const rowBytes = <usize>args.xStride << 2;
  const others = args.tokens - 1;
  const end = shareStart(args.batch, 1, thread + 1, threads);
  for (let image = shareStart(args.batch, 1, thread, threads); image < end; image++) {
    const first = args.x + <usize>(image * args.tokens) * rowBytes;
    const y = args.y + (<usize>(image * args.yStride) << 2);
    if (args.average == 0) {
      memory.copy(y, first + <usize>others * rowBytes, bytes);
      continue;
    }
    const share = f32x4.splat(1 / <f32>others);
    for (let i: usize = 0; i < bytes; i += 16) {
      let sum = f32x4.splat(0);
      for (let token = 0; token < others; token++) sum = f32x4.add(sum, v128.load(first + <usize>token * rowBytes + i));
      v128.store(y + i, f32x4.mul(sum, share));
    }
  }
}
