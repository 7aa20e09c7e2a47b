/**
 * The products of matrices that the scan's gradient consists of, in tiles of 4 rows by 8 columns. Rows by channel are
 * CHANNEL_ROW bytes apart, rows by step STEP_ROW. Loop bodies are short: engines keep a whole tile in registers.
 */

import { madd } from '../as/simd.as';
import { STEP_ROW } from './arguments.as';

/** Bytes of the channels of a block. */
export const CHANNEL_ROW: usize = 256;

/** to = q * from + A x for 4 state rows and 8 channels; A is [4][steps], x by channel from `x` to `xEnd`. */
export function tileState(from: usize, to: usize, a: usize, x: usize, xEnd: usize, q: usize): void {
  const q0 = v128.load(q);
  const q1 = v128.load(q, 16);
  let a0 = f32x4.mul(q0, v128.load(from));
  let a1 = f32x4.mul(q1, v128.load(from, 16));
  let b0 = f32x4.mul(q0, v128.load(from, 256));
  let b1 = f32x4.mul(q1, v128.load(from, 272));
  let c0 = f32x4.mul(q0, v128.load(from, 512));
  let c1 = f32x4.mul(q1, v128.load(from, 528));
  let d0 = f32x4.mul(q0, v128.load(from, 768));
  let d1 = f32x4.mul(q1, v128.load(from, 784));
  for (; x < xEnd; x += CHANNEL_ROW, a += 4) {
    const x0 = v128.load(x);
    const x1 = v128.load(x, 16);
    let w = v128.load32_splat(a);
    a0 = madd(w, x0, a0);
    a1 = madd(w, x1, a1);
    w = v128.load32_splat(a, 128);
    b0 = madd(w, x0, b0);
    b1 = madd(w, x1, b1);
    w = v128.load32_splat(a, 256);
    c0 = madd(w, x0, c0);
    c1 = madd(w, x1, c1);
    w = v128.load32_splat(a, 384);
    d0 = madd(w, x0, d0);
    d1 = madd(w, x1, d1);
  }
  v128.store(to, a0);
  v128.store(to, a1, 16);
  v128.store(to, b0, 256);
  v128.store(to, b1, 272);
  v128.store(to, c0, 512);
  v128.store(to, c1, 528);
  v128.store(to, d0, 768);
  v128.store(to, d1, 784);
}

/** z = scale * (A' x) for 4 steps and 8 channels; A is [n][4 of the steps], x by channel from `x` to `xEnd`. */
export function tileInputs(z: usize, a: usize, x: usize, xEnd: usize, scale: usize): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let b0 = a0;
  let b1 = a0;
  let c0 = a0;
  let c1 = a0;
  let d0 = a0;
  let d1 = a0;
  for (; x < xEnd; x += CHANNEL_ROW, a += STEP_ROW) {
    const x0 = v128.load(x);
    const x1 = v128.load(x, 16);
    let w = v128.load32_splat(a);
    a0 = madd(w, x0, a0);
    a1 = madd(w, x1, a1);
    w = v128.load32_splat(a, 4);
    b0 = madd(w, x0, b0);
    b1 = madd(w, x1, b1);
    w = v128.load32_splat(a, 8);
    c0 = madd(w, x0, c0);
    c1 = madd(w, x1, c1);
    w = v128.load32_splat(a, 12);
    d0 = madd(w, x0, d0);
    d1 = madd(w, x1, d1);
  }
  v128.store(z, f32x4.mul(a0, v128.load(scale)));
  v128.store(z, f32x4.mul(a1, v128.load(scale, 16)), 16);
  v128.store(z, f32x4.mul(b0, v128.load(scale, 256)), 256);
  v128.store(z, f32x4.mul(b1, v128.load(scale, 272)), 272);
  v128.store(z, f32x4.mul(c0, v128.load(scale, 512)), 512);
  v128.store(z, f32x4.mul(c1, v128.load(scale, 528)), 528);
  v128.store(z, f32x4.mul(d0, v128.load(scale, 768)), 768);
  v128.store(z, f32x4.mul(d1, v128.load(scale, 784)), 784);
}

/** z += scale * (A x) for 4 steps and 8 channels; A is [4][steps], x by channel from `x` to `xEnd`. */
export function tileRun(z: usize, a: usize, x: usize, xEnd: usize, scale: usize): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let b0 = a0;
  let b1 = a0;
  let c0 = a0;
  let c1 = a0;
  let d0 = a0;
  let d1 = a0;
  for (; x < xEnd; x += CHANNEL_ROW, a += 4) {
    const x0 = v128.load(x);
    const x1 = v128.load(x, 16);
    let w = v128.load32_splat(a);
    a0 = madd(w, x0, a0);
    a1 = madd(w, x1, a1);
    w = v128.load32_splat(a, 128);
    b0 = madd(w, x0, b0);
    b1 = madd(w, x1, b1);
    w = v128.load32_splat(a, 256);
    c0 = madd(w, x0, c0);
    c1 = madd(w, x1, c1);
    w = v128.load32_splat(a, 384);
    d0 = madd(w, x0, d0);
    d1 = madd(w, x1, d1);
  }
  v128.store(z, madd(a0, v128.load(scale), v128.load(z)));
  v128.store(z, madd(a1, v128.load(scale, 16), v128.load(z, 16)), 16);
  v128.store(z, madd(b0, v128.load(scale, 256), v128.load(z, 256)), 256);
  v128.store(z, madd(b1, v128.load(scale, 272), v128.load(z, 272)), 272);
  v128.store(z, madd(c0, v128.load(scale, 512), v128.load(z, 512)), 512);
  v128.store(z, madd(c1, v128.load(scale, 528), v128.load(z, 528)), 528);
  v128.store(z, madd(d0, v128.load(scale, 768), v128.load(z, 768)), 768);
  v128.store(z, madd(d1, v128.load(scale, 784), v128.load(z, 784)), 784);
}

/** Adds a tile of 4 rows by 8 steps to `to`. */
@inline
function addTile(to: usize, a0: v128, a1: v128, b0: v128, b1: v128, c0: v128, c1: v128, d0: v128, d1: v128): void {
  v128.store(to, f32x4.add(v128.load(to), a0));
  v128.store(to, f32x4.add(v128.load(to, 16), a1), 16);
  v128.store(to, f32x4.add(v128.load(to, 128), b0), 128);
  v128.store(to, f32x4.add(v128.load(to, 144), b1), 144);
  v128.store(to, f32x4.add(v128.load(to, 256), c0), 256);
  v128.store(to, f32x4.add(v128.load(to, 272), c1), 272);
  v128.store(to, f32x4.add(v128.load(to, 384), d0), 384);
  v128.store(to, f32x4.add(v128.load(to, 400), d1), 400);
}

/** to += A x for rows of channels of A and 8 steps of x, which is by step, one row a channel. */
export function addProducts(to: usize, toEnd: usize, a: usize, x: usize, xEnd: usize): void {
  for (; to < toEnd; to += 4 * STEP_ROW, a += 4 * CHANNEL_ROW) {
    let a0 = f32x4.splat(0);
    let a1 = a0;
    let b0 = a0;
    let b1 = a0;
    let c0 = a0;
    let c1 = a0;
    let d0 = a0;
    let d1 = a0;
    let from = a;
    for (let k = x; k < xEnd; k += STEP_ROW, from += 4) {
      const x0 = v128.load(k);
      const x1 = v128.load(k, 16);
      let w = v128.load32_splat(from);
      a0 = madd(w, x0, a0);
      a1 = madd(w, x1, a1);
      w = v128.load32_splat(from, 256);
      b0 = madd(w, x0, b0);
      b1 = madd(w, x1, b1);
      w = v128.load32_splat(from, 512);
      c0 = madd(w, x0, c0);
      c1 = madd(w, x1, c1);
      w = v128.load32_splat(from, 768);
      d0 = madd(w, x0, d0);
      d1 = madd(w, x1, d1);
    }
    addTile(to, a0, a1, b0, b1, c0, c1, d0, d1);
  }
}

/** As `addProducts`, and each row's product times its row of `weights` is added to the 8 numbers at `along`. */
export function addWeighedProducts(to: usize, toEnd: usize, a: usize, x: usize, xEnd: usize, weights: usize, along: usize): void {
  let r0 = v128.load(along);
  let r1 = v128.load(along, 16);
  for (; to < toEnd; to += 4 * STEP_ROW, a += 4 * CHANNEL_ROW, weights += 4 * STEP_ROW) {
    let a0 = f32x4.splat(0);
    let a1 = a0;
    let b0 = a0;
    let b1 = a0;
    let c0 = a0;
    let c1 = a0;
    let d0 = a0;
    let d1 = a0;
    let from = a;
    for (let k = x; k < xEnd; k += STEP_ROW, from += 4) {
      const x0 = v128.load(k);
      const x1 = v128.load(k, 16);
      let w = v128.load32_splat(from);
      a0 = madd(w, x0, a0);
      a1 = madd(w, x1, a1);
      w = v128.load32_splat(from, 256);
      b0 = madd(w, x0, b0);
      b1 = madd(w, x1, b1);
      w = v128.load32_splat(from, 512);
      c0 = madd(w, x0, c0);
      c1 = madd(w, x1, c1);
      w = v128.load32_splat(from, 768);
      d0 = madd(w, x0, d0);
      d1 = madd(w, x1, d1);
    }
    r0 = madd(a0, v128.load(weights), r0);
    r1 = madd(a1, v128.load(weights, 16), r1);
    r0 = madd(b0, v128.load(weights, 128), r0);
    r1 = madd(b1, v128.load(weights, 144), r1);
    r0 = madd(c0, v128.load(weights, 256), r0);
    r1 = madd(c1, v128.load(weights, 272), r1);
    r0 = madd(d0, v128.load(weights, 384), r0);
    r1 = madd(d1, v128.load(weights, 400), r1);
    addTile(to, a0, a1, b0, b1, c0, c1, d0, d1);
  }
  v128.store(along, r0);
  v128.store(along, r1, 16);
}
