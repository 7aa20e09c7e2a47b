/** Copies each patch of an image into one row, or back; patches are dealt to the threads. */

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
  movePatches(changetype<PatchifyArguments>(address), thread, threads, false);
}

/** The way back: `y` is read and `x` written. */
export function patchifyBackward(address: usize, thread: i32, threads: i32): void {
  movePatches(changetype<PatchifyArguments>(address), thread, threads, true);
}

function movePatches(args: PatchifyArguments, thread: i32, threads: i32, back: bool): void {
  const p = args.patchSize;
  const bytes = <usize>p << 2;
  const across = args.width / p;
  const down = args.height / p;
  const patches = args.batch * down * across;
  const columns = args.channels * p * p;
  const end = shareStart(patches, 1, thread + 1, threads);
  for (let patch = shareStart(patches, 1, thread, threads); patch < end; patch++) {
    const image = patch / (down * across);
    const top = ((patch / across) % down) * p;
    const left = (patch % across) * p;
    let packed = args.y + (<usize>(patch * args.yStride) << 2);
    for (let c = 0; c < args.channels; c++) {
      for (let i = 0; i < p; i++) {
        const row = (image * args.channels + c) * args.height + top + i;
        const pixels = args.x + (<usize>(row * args.xStride + left) << 2);
        if (back) memory.copy(pixels, packed, bytes);
        else memory.copy(packed, pixels, bytes);
        if (back && left + p == args.width) memory.fill(pixels + bytes, 0, <usize>(padded(args.width) - args.width) << 2);
        packed += bytes;
      }
    }
    if (!back) memory.fill(packed, 0, <usize>(padded(columns) - columns) << 2);
  }
}
