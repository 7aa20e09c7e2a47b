/** Splits the gradient of tokens; token positions are dealt to the threads, each summing its own over the batch. */

import { shareStart } from '../as/simd.as';

@unmanaged
class VisionTokensBackwardArguments {
  dy: usize;
  dyStride: i32;
  dx: usize;
  dxStride: i32;
  /** 0: not trained. */
  dClass: usize;
  dPosition: usize;
  batch: i32;
  /** L + 1. */
  tokens: i32;
  width: i32;
}

/** target += source, `bytes` long; nothing without a target. */
function addRow(target: usize, source: usize, bytes: usize): void {
  if (target == 0) return;
  for (let i: usize = 0; i < bytes; i += 16) v128.store(target + i, f32x4.add(v128.load(target + i), v128.load(source + i)));
}

export function visionTokensBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<VisionTokensBackwardArguments>(address);
  const tokens = args.tokens;
  const bytes = <usize>args.width << 2;
  const end = shareStart(tokens, 1, thread + 1, threads);
  for (let token = shareStart(tokens, 1, thread, threads); token < end; token++) {
    const last = token == tokens - 1;
    for (let image = 0; image < args.batch; image++) {
      const dy = args.dy + (<usize>((image * tokens + token) * args.dyStride) << 2);
      if (args.dPosition != 0) addRow(args.dPosition + <usize>token * bytes, dy, bytes);
      if (last) addRow(args.dClass, dy, bytes);
      else memory.copy(args.dx + (<usize>((image * (tokens - 1) + token) * args.dxStride) << 2), dy, bytes);
    }
  }
}
