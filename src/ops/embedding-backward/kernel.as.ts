/** Adds token gradients to the table's rows; columns are dealt to the threads, so no two of them write one place. */

import { padded, shareStart } from '../as/simd.as';

@unmanaged
class EmbeddingBackwardArguments {
  ids: usize;
  dy: usize;
  dyStride: i32;
  dWeight: usize;
  dWeightStride: i32;
  rows: i32;
  width: i32;
  vocabulary: i32;
}

export function embeddingBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<EmbeddingBackwardArguments>(address);
  const width = padded(args.width);
  const start = <usize>shareStart(width, 4, thread, threads) << 2;
  const end = <usize>shareStart(width, 4, thread + 1, threads) << 2;
  for (let row = 0; row < args.rows; row++) {
    const id = load<i32>(args.ids + (<usize>row << 2));
    if (id < 0 || id >= args.vocabulary) continue;
    const dy = args.dy + (<usize>(row * args.dyStride) << 2);
    const target = args.dWeight + (<usize>id * <usize>args.dWeightStride << 2);
    for (let i = start; i < end; i += 16) v128.store(target + i, f32x4.add(v128.load(target + i), v128.load(dy + i)));
  }
}
