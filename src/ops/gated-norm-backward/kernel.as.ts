/**
 * Gradient of the gated RMS norm, one row at a time; rows are dealt to the threads, each with its own sums of dWeight.
 * With s = sigmoid(z): silu(z) = z s and silu'(z) = s (1 + z (1 - s)).
 */

import { keepLanes, madd, padded, shareStart, silu4, siluSlope4, sumLanes } from '../as/simd.as';

@unmanaged
class GatedNormBackwardArguments {
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
  weight: usize;
  /** [thread][padded width]. */
  sums: usize;
  rows: i32;
  width: i32;
  normBeforeGate: i32;
  eps: f32;
}

export function gatedNormBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<GatedNormBackwardArguments>(address);
  const bytes = <usize>padded(args.width) << 2;
  const sums = args.sums + <usize>thread * bytes;
  memory.fill(sums, 0, bytes);
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    if (args.normBeforeGate != 0) normFirst(args, row, sums, bytes);
    else gateFirst(args, row, sums, bytes);
  }
}

/** g = x silu(z); y = g r w: dg = r (w dy - ghat mean(w dy ghat)); dx = dg silu(z); dz = dg x silu'(z). */
function gateFirst(args: GatedNormBackwardArguments, row: i32, sums: usize, bytes: usize): void {
  const width = args.width;
  const x = args.x + (<usize>(row * args.xStride) << 2);
  const z = args.z + (<usize>(row * args.zStride) << 2);
  const dy = args.dy + (<usize>(row * args.dyStride) << 2);
  const dx = args.dx + (<usize>(row * args.dxStride) << 2);
  const dz = args.dz + (<usize>(row * args.dzStride) << 2);
  let square = f32x4.splat(0);
  let along = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const lanes = width - <i32>(i >> 2);
    const g = keepLanes(f32x4.mul(v128.load(x + i), silu4(v128.load(z + i))), lanes);
    const e = keepLanes(f32x4.mul(v128.load(args.weight + i), v128.load(dy + i)), lanes);
    square = madd(g, g, square);
    along = madd(e, g, along);
  }
  const r: f32 = 1 / sqrt<f32>(sumLanes(square) / <f32>width + args.eps);
  const r4 = f32x4.splat(r);
  const meanAlong = f32x4.splat((sumLanes(along) * r) / <f32>width);
  for (let i: usize = 0; i < bytes; i += 16) {
    const lanes = width - <i32>(i >> 2);
    const z4 = v128.load(z + i);
    const x4 = v128.load(x + i);
    const dy4 = v128.load(dy + i);
    const gate = silu4(z4);
    const hat = f32x4.mul(f32x4.mul(x4, gate), r4);
    v128.store(sums + i, madd(dy4, hat, v128.load(sums + i)));
    const dg = f32x4.mul(r4, f32x4.sub(f32x4.mul(v128.load(args.weight + i), dy4), f32x4.mul(hat, meanAlong)));
    v128.store(dx + i, keepLanes(f32x4.mul(dg, gate), lanes));
    v128.store(dz + i, keepLanes(f32x4.mul(f32x4.mul(dg, x4), siluSlope4(z4)), lanes));
  }
}

/** n = x r w; y = n silu(z): dz = dy n silu'(z); dn = dy silu(z); dx = r (w dn - xhat mean(w dn xhat)). */
function normFirst(args: GatedNormBackwardArguments, row: i32, sums: usize, bytes: usize): void {
  const width = args.width;
  const x = args.x + (<usize>(row * args.xStride) << 2);
  const z = args.z + (<usize>(row * args.zStride) << 2);
  const dy = args.dy + (<usize>(row * args.dyStride) << 2);
  const dx = args.dx + (<usize>(row * args.dxStride) << 2);
  const dz = args.dz + (<usize>(row * args.dzStride) << 2);
  let square = f32x4.splat(0);
  let along = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const lanes = width - <i32>(i >> 2);
    const x4 = keepLanes(v128.load(x + i), lanes);
    const dn = f32x4.mul(v128.load(dy + i), silu4(v128.load(z + i)));
    square = madd(x4, x4, square);
    along = madd(keepLanes(f32x4.mul(v128.load(args.weight + i), dn), lanes), x4, along);
  }
  const r: f32 = 1 / sqrt<f32>(sumLanes(square) / <f32>width + args.eps);
  const r4 = f32x4.splat(r);
  const meanAlong = f32x4.splat((sumLanes(along) * r) / <f32>width);
  for (let i: usize = 0; i < bytes; i += 16) {
    const lanes = width - <i32>(i >> 2);
    const z4 = v128.load(z + i);
    const dy4 = v128.load(dy + i);
    const w4 = v128.load(args.weight + i);
    const hat = f32x4.mul(v128.load(x + i), r4);
    const dn = f32x4.mul(dy4, silu4(z4));
    v128.store(sums + i, madd(dn, hat, v128.load(sums + i)));
    v128.store(dz + i, keepLanes(f32x4.mul(f32x4.mul(dy4, f32x4.mul(hat, w4)), siluSlope4(z4)), lanes));
    v128.store(dx + i, keepLanes(f32x4.mul(r4, f32x4.sub(f32x4.mul(w4, dn), f32x4.mul(hat, meanAlong))), lanes));
  }
}
