/**
 * Gradient of a row norm. Rows are dealt to the threads; each sums the parameter gradients of its rows in its own part
 * of the scratch, and `addSums` adds the parts in thread order, so results repeat bit for bit.
 */

import { keepLanes, madd, padded, shareStart, sumLanes } from '../as/simd.as';

@unmanaged
class NormBackwardArguments {
  x: usize;
  xStride: i32;
  dy: usize;
  dyStride: i32;
  /** 0: none. */
  dSum: usize;
  dSumStride: i32;
  dx: usize;
  dxStride: i32;
  weight: usize;
  /** [thread][dWeight, dBias][padded width]. */
  sums: usize;
  rows: i32;
  width: i32;
  center: i32;
  eps: f32;
}

export function normBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<NormBackwardArguments>(address);
  const bytes = <usize>padded(args.width) << 2;
  const sums = args.sums + <usize>thread * 2 * bytes;
  memory.fill(sums, 0, 2 * bytes);
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) rowBackward(args, row, sums, bytes);
}

function rowBackward(args: NormBackwardArguments, row: i32, dWeight: usize, bytes: usize): void {
  const width = args.width;
  const x = args.x + (<usize>(row * args.xStride) << 2);
  const dy = args.dy + (<usize>(row * args.dyStride) << 2);
  const dx = args.dx + (<usize>(row * args.dxStride) << 2);
  const dBias = dWeight + bytes;
  const size = <f32>width;
  let mean: f32 = 0;
  if (args.center != 0) {
    let total = f32x4.splat(0);
    for (let i: usize = 0; i < bytes; i += 16) total = f32x4.add(total, v128.load(x + i));
    mean = sumLanes(total) / size;
  }
  const mean4 = f32x4.splat(mean);
  let square = f32x4.splat(0);
  let along = f32x4.splat(0);
  let plain = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const lanes = width - <i32>(i >> 2);
    const centred = keepLanes(f32x4.sub(v128.load(x + i), mean4), lanes);
    const g = keepLanes(f32x4.mul(v128.load(args.weight + i), v128.load(dy + i)), lanes);
    square = madd(centred, centred, square);
    along = madd(g, centred, along);
    plain = f32x4.add(plain, g);
  }
  const r: f32 = 1 / sqrt<f32>(sumLanes(square) / size + args.eps);
  const r4 = f32x4.splat(r);
  const meanAlong = f32x4.splat((sumLanes(along) * r) / size);
  const meanPlain = f32x4.splat(args.center != 0 ? sumLanes(plain) / size : 0);
  const dSum = args.dSum != 0 ? args.dSum + (<usize>(row * args.dSumStride) << 2) : 0;
  for (let i: usize = 0; i < bytes; i += 16) {
    const gradient = v128.load(dy + i);
    const hat = f32x4.mul(f32x4.sub(v128.load(x + i), mean4), r4);
    const g = f32x4.mul(v128.load(args.weight + i), gradient);
    v128.store(dWeight + i, madd(gradient, hat, v128.load(dWeight + i)));
    v128.store(dBias + i, f32x4.add(v128.load(dBias + i), gradient));
    let value = f32x4.mul(r4, f32x4.sub(f32x4.sub(g, meanPlain), f32x4.mul(hat, meanAlong)));
    if (dSum != 0) value = f32x4.add(value, v128.load(dSum + i));
    v128.store(dx + i, keepLanes(value, width - <i32>(i >> 2)));
  }
}

@unmanaged
class AddSumsArguments {
  sums: usize;
  count: i32;
  /** Floats from one part to the next. */
  stride: i32;
  target: usize;
  width: i32;
}

/** target += the parts in order; columns are dealt to the threads. */
export function addSums(address: usize, thread: i32, threads: i32): void {
  const args = changetype<AddSumsArguments>(address);
  const end = shareStart(args.width, 4, thread + 1, threads);
  for (let column = shareStart(args.width, 4, thread, threads); column < end; column += 4) {
    const offset = <usize>column << 2;
    let sum = v128.load(args.sums + offset);
    for (let part = 1; part < args.count; part++) sum = f32x4.add(sum, v128.load(args.sums + (<usize>(part * args.stride) << 2) + offset));
    const lanes = args.width - column;
    v128.store(args.target + offset, f32x4.add(v128.load(args.target + offset), keepLanes(sum, lanes)));
  }
}
