/** x * silu(z) of each row; y may be x itself. */

import { keepLanes, padded, shareStart, silu4 } from '../as/simd.as';

@unmanaged
class GatedSiluArguments {
  x: usize;
  xStride: i32;
  z: usize;
  zStride: i32;
  y: usize;
  yStride: i32;
  rows: i32;
  width: i32;
}

export function gatedSilu(address: usize, thread: i32, threads: i32): void {
  const args = changetype<GatedSiluArguments>(address);
  const width = args.width;
  const bytes = <usize>padded(width) << 2;
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    const x = args.x + (<usize>(row * args.xStride) << 2);
    const z = args.z + (<usize>(row * args.zStride) << 2);
    const y = args.y + (<usize>(row * args.yStride) << 2);
    for (let i: usize = 0; i < bytes; i += 16) {
      v128.store(y + i, keepLanes(f32x4.mul(v128.load(x + i), silu4(v128.load(z + i))), width - <i32>(i >> 2)));
    }
  }
}
