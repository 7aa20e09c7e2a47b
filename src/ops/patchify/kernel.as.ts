/** Copies each patch of an image into one row; patches are dealt to the threads. */

import { padded, shareStart } from '../as/simd.as';

@unmanaged
class PatchifyArguments {
  x: usize;
  xStride: i32;
  y: usize;
  yStride: i32;
  batch: i32;
  channels: i32;
  height: i32;
  width: i32;
  patchSize: i32;
}

export function patchify(address: usize, thread: i32, threads: i32): void {
  const args = changetype<PatchifyArguments>(address);
  const p = args.patchSize;
  const across = args.width / p;
  const down = args.height / p;
  const patches = args.batch * down * across;
  const columns = args.channels * p * p;
  const end = shareStart(patches, 1, thread + 1, threads);
  for (let patch = shareStart(patches, 1, thread, threads); patch < end; patch++) {
    const image = patch / (down * across);
    const top = ((patch / across) % down) * p;
    const left = (patch % across) * p;
    let to = args.y + (<usize>(patch * args.yStride) << 2);
    for (let c = 0; c < args.channels; c++) {
      for (let i = 0; i < p; i++) {
        const row = (image * args.channels + c) * args.height + top + i;
        memory.copy(to, args.x + (<usize>(row * args.xStride + left) << 2), <usize>p << 2);
        to += <usize>p << 2;
      }
    }
    memory.fill(to, 0, <usize>(padded(columns) - columns) << 2);
  }
}
