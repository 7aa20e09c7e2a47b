/** Gated RMS norm of each row; y may be x itself. */

import { keepLanes, madd, padded, shareStart, silu4, sumLanes } from '../as/simd.as';

@unmanaged
class GatedNormArguments {
  x: usize;
  xStride: i32;
  z: usize;
  zStride: i32;
  y: usize;
  yStride: i32;
  weight: usize;
  rows: i32;
  width: i32;
  normBeforeGate: i32;
  eps: f32;
}

export function gatedNorm(address: usize, thread: i32, threads: i32): void {
  const args = changetype<GatedNormArguments>(address);
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    const x = args.x + (<usize>(row * args.xStride) << 2);
    const z = args.z + (<usize>(row * args.zStride) << 2);
    const y = args.y + (<usize>(row * args.yStride) << 2);
    if (args.normBeforeGate != 0) normThenGate(args, x, z, y);
    else gateThenNorm(args, x, z, y);
  }
}

function scaleOf(args: GatedNormArguments, squares: v128): v128 {
  return f32x4.splat(1 / sqrt<f32>(sumLanes(squares) / <f32>args.width + args.eps));
}

function gateThenNorm(args: GatedNormArguments, x: usize, z: usize, y: usize): void {
  const width = args.width;
  const bytes = <usize>padded(width) << 2;
  let squares = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const value = keepLanes(f32x4.mul(v128.load(x + i), silu4(v128.load(z + i))), width - <i32>(i >> 2));
    squares = madd(value, value, squares);
    v128.store(y + i, value);
  }
  const scale = scaleOf(args, squares);
  for (let i: usize = 0; i < bytes; i += 16) {
    const value = f32x4.mul(f32x4.mul(v128.load(y + i), scale), v128.load(args.weight + i));
    v128.store(y + i, keepLanes(value, width - <i32>(i >> 2)));
  }
}

function normThenGate(args: GatedNormArguments, x: usize, z: usize, y: usize): void {
  const width = args.width;
  const bytes = <usize>padded(width) << 2;
  let squares = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const value = keepLanes(v128.load(x + i), width - <i32>(i >> 2));
    squares = madd(value, value, squares);
  }
  const scale = scaleOf(args, squares);
  for (let i: usize = 0; i < bytes; i += 16) {
    const value = f32x4.mul(f32x4.mul(v128.load(x + i), scale), v128.load(args.weight + i));
    v128.store(y + i, keepLanes(f32x4.mul(value, silu4(v128.load(z + i))), width - <i32>(i >> 2)));
  }
}
