/** Gradient of x * silu(z) of each row; rows are dealt to the threads. */

import { keepLanes, padded, shareStart, silu4, siluSlope4 } from '../as/simd.as';

@unmanaged
class GatedSiluBackwardArguments {
  x: usize;
  xStride: i32;
  z: usize;
  zStride: i32;
  dy: usize;
  dyStride: i32;
  dx: usize;
  dxStride: i32;
  dz: usize;
  dzStride: i32;
  rows: i32;
  width: i32;
}

export function gatedSiluBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<GatedSiluBackwardArguments>(address);
  const bytes = <usize>padded(args.width) << 2;
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    const x = args.x + (<usize>(row * args.xStride) << 2);
    const z = args.z + (<usize>(row * args.zStride) << 2);
    const dy = args.dy + (<usize>(row * args.dyStride) << 2);
    const dx = args.dx + (<usize>(row * args.dxStride) << 2);
    const dz = args.dz + (<usize>(row * args.dzStride) << 2);
    for (let i: usize = 0; i < bytes; i += 16) {
      const lanes = args.width - <i32>(i >> 2);
      const z4 = v128.load(z + i);
      const dy4 = v128.load(dy + i);
      v128.store(dz + i, keepLanes(f32x4.mul(f32x4.mul(dy4, v128.load(x + i)), siluSlope4(z4)), lanes));
      v128.store(dx + i, keepLanes(f32x4.mul(dy4, silu4(z4)), lanes));
    }
  }
}
