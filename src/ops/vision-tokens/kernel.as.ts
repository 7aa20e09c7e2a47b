/** Patch tokens and the class token plus their positions; rows are dealt to the threads. D is a multiple of 32. */

import { shareStart } from '../as/simd.as';

@unmanaged
class VisionTokensArguments {
  x: usize;
  xStride: i32;
  classToken: usize;
  position: usize;
  y: usize;
  yStride: i32;
  /** L + 1. */
  tokens: i32;
  rows: i32;
  width: i32;
}

export function visionTokens(address: usize, thread: i32, threads: i32): void {
  const args = changetype<VisionTokensArguments>(address);
  const tokens = args.tokens;
  const bytes = <usize>args.width << 2;
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    const image = row / tokens;
    const token = row % tokens;
    const source =
      token == tokens - 1 ? args.classToken : args.x + (<usize>((image * (tokens - 1) + token) * args.xStride) << 2);
    const position = args.position + <usize>token * bytes;
    const y = args.y + (<usize>(row * args.yStride) << 2);
    for (let i: usize = 0; i < bytes; i += 16) v128.store(y + i, f32x4.add(v128.load(source + i), v128.load(position + i)));
  }
}
