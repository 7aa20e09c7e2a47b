/**
 * The products of matrices that the scan's gradient consists of, in tiles of 4 rows by 8 columns. Rows by channel are
 * CHANNEL_ROW bytes apart, rows by step STEP_ROW. Loop bodies are short: engines keep a whole tile in registers.
 */

import { madd } from '../as/simd.as';
import { STEP_ROW } from './arguments.as';

/** Bytes of the channels of a block. */
export const CHANNEL_ROW: usize = 272;

/** state = q * state + A x for 4 state rows and 8 channels; A is [4][steps], x by channel from `x` to `xEnd`. */
export function tileState(state: usize, a: usize, x: usize, xEnd: usize, q: usize): void {
  const q0 = v128.load(q);
  const q1 = v128.load(q, 16);
  let a0 = f32x4.mul(q0, v128.load(state));
  let a1 = f32x4.mul(q1, v128.load(state, 16));
  let b0 = f32x4.mul(q0, v128.load(state, CHANNEL_ROW));
  let b1 = f32x4.mul(q1, v128.load(state, CHANNEL_ROW + 16));
  let c0 = f32x4.mul(q0, v128.load(state, 2 * CHANNEL_ROW));
  let c1 = f32x4.mul(q1, v128.load(state, 2 * CHANNEL_ROW + 16));
  let d0 = f32x4.mul(q0, v128.load(state, 3 * CHANNEL_ROW));
  let d1 = f32x4.mul(q1, v128.load(state, 3 * CHANNEL_ROW + 16));
  for (; x < xEnd; x += CHANNEL_ROW, a += 4) {
    const x0 = v128.load(x);
    const x1 = v128.load(x, 16);
    let w = v128.load32_splat(a);
    a0 = madd(w, x0, a0);
    a1 = madd(w, x1, a1);
    w = v128.load32_splat(a, STEP_ROW);
    b0 = madd(w, x0, b0);
    b1 = madd(w, x1, b1);
    w = v128.load32_splat(a, 2 * STEP_ROW);
    c0 = madd(w, x0, c0);
    c1 = madd(w, x1, c1);
    w = v128.load32_splat(a, 3 * STEP_ROW);
    d0 = madd(w, x0, d0);
    d1 = madd(w, x1, d1);
  }
  v128.store(state, a0);
  v128.store(state, a1, 16);
  v128.store(state, b0, CHANNEL_ROW);
  v128.store(state, b1, CHANNEL_ROW + 16);
  v128.store(state, c0, 2 * CHANNEL_ROW);
  v128.store(state, c1, 2 * CHANNEL_ROW + 16);
  v128.store(state, d0, 3 * CHANNEL_ROW);
  v128.store(state, d1, 3 * CHANNEL_ROW + 16);
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
  v128.store(z, f32x4.mul(b0, v128.load(scale, CHANNEL_ROW)), CHANNEL_ROW);
  v128.store(z, f32x4.mul(b1, v128.load(scale, CHANNEL_ROW + 16)), CHANNEL_ROW + 16);
  v128.store(z, f32x4.mul(c0, v128.load(scale, 2 * CHANNEL_ROW)), 2 * CHANNEL_ROW);
  v128.store(z, f32x4.mul(c1, v128.load(scale, 2 * CHANNEL_ROW + 16)), 2 * CHANNEL_ROW + 16);
  v128.store(z, f32x4.mul(d0, v128.load(scale, 3 * CHANNEL_ROW)), 3 * CHANNEL_ROW);
  v128.store(z, f32x4.mul(d1, v128.load(scale, 3 * CHANNEL_ROW + 16)), 3 * CHANNEL_ROW + 16);
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
    w = v128.load32_splat(a, STEP_ROW);
    b0 = madd(w, x0, b0);
    b1 = madd(w, x1, b1);
    w = v128.load32_splat(a, 2 * STEP_ROW);
    c0 = madd(w, x0, c0);
    c1 = madd(w, x1, c1);
    w = v128.load32_splat(a, 3 * STEP_ROW);
    d0 = madd(w, x0, d0);
    d1 = madd(w, x1, d1);
  }
  v128.store(z, madd(a0, v128.load(scale), v128.load(z)));
  v128.store(z, madd(a1, v128.load(scale, 16), v128.load(z, 16)), 16);
  v128.store(z, madd(b0, v128.load(scale, CHANNEL_ROW), v128.load(z, CHANNEL_ROW)), CHANNEL_ROW);
  v128.store(z, madd(b1, v128.load(scale, CHANNEL_ROW + 16), v128.load(z, CHANNEL_ROW + 16)), CHANNEL_ROW + 16);
  v128.store(z, madd(c0, v128.load(scale, 2 * CHANNEL_ROW), v128.load(z, 2 * CHANNEL_ROW)), 2 * CHANNEL_ROW);
  v128.store(z, madd(c1, v128.load(scale, 2 * CHANNEL_ROW + 16), v128.load(z, 2 * CHANNEL_ROW + 16)), 2 * CHANNEL_ROW + 16);
  v128.store(z, madd(d0, v128.load(scale, 3 * CHANNEL_ROW), v128.load(z, 3 * CHANNEL_ROW)), 3 * CHANNEL_ROW);
  v128.store(z, madd(d1, v128.load(scale, 3 * CHANNEL_ROW + 16), v128.load(z, 3 * CHANNEL_ROW + 16)), 3 * CHANNEL_ROW + 16);
}

/** Adds a tile of 4 rows by 8 steps to `to`. */
@inline
function addTile(to: usize, a0: v128, a1: v128, b0: v128, b1: v128, c0: v128, c1: v128, d0: v128, d1: v128): void {
  v128.store(to, f32x4.add(v128.load(to), a0));
  v128.store(to, f32x4.add(v128.load(to, 16), a1), 16);
  v128.store(to, f32x4.add(v128.load(to, STEP_ROW), b0), STEP_ROW);
  v128.store(to, f32x4.add(v128.load(to, STEP_ROW + 16), b1), STEP_ROW + 16);
  v128.store(to, f32x4.add(v128.load(to, 2 * STEP_ROW), c0), 2 * STEP_ROW);
  v128.store(to, f32x4.add(v128.load(to, 2 * STEP_ROW + 16), c1), 2 * STEP_ROW + 16);
  v128.store(to, f32x4.add(v128.load(to, 3 * STEP_ROW), d0), 3 * STEP_ROW);
  v128.store(to, f32x4.add(v128.load(to, 3 * STEP_ROW + 16), d1), 3 * STEP_ROW + 16);
}

/** to += A x for 4 rows of channels of A and 8 steps of x, which is by step, one row a channel. */
export function addProducts(to: usize, a: usize, x: usize, xEnd: usize): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let b0 = a0;
  let b1 = a0;
  let c0 = a0;
  let c1 = a0;
  let d0 = a0;
  let d1 = a0;
  for (; x < xEnd; x += STEP_ROW, a += 4) {
    const x0 = v128.load(x);
    const x1 = v128.load(x, 16);
    let w = v128.load32_splat(a);
    a0 = madd(w, x0, a0);
    a1 = madd(w, x1, a1);
    w = v128.load32_splat(a, CHANNEL_ROW);
    b0 = madd(w, x0, b0);
    b1 = madd(w, x1, b1);
    w = v128.load32_splat(a, 2 * CHANNEL_ROW);
    c0 = madd(w, x0, c0);
    c1 = madd(w, x1, c1);
    w = v128.load32_splat(a, 3 * CHANNEL_ROW);
    d0 = madd(w, x0, d0);
    d1 = madd(w, x1, d1);
  }
  addTile(to, a0, a1, b0, b1, c0, c1, d0, d1);
}

/** As `addProducts` for each of the heads; what a head gives, times `weights`, is added to its 8 numbers from `along` on. */
export function addWeighedProducts(to: usize, a: usize, x: usize, headSteps: usize, heads: i32, weights: usize, along: usize): void {
  for (let h = 0; h < heads; h++, along += STEP_ROW) {
    let a0 = f32x4.splat(0);
    let a1 = a0;
    let b0 = a0;
    let b1 = a0;
    let c0 = a0;
    let c1 = a0;
    let d0 = a0;
    let d1 = a0;
    for (const end = x + headSteps; x < end; x += STEP_ROW, a += 4) {
      const x0 = v128.load(x);
      const x1 = v128.load(x, 16);
      let w = v128.load32_splat(a);
      a0 = madd(w, x0, a0);
      a1 = madd(w, x1, a1);
      w = v128.load32_splat(a, CHANNEL_ROW);
      b0 = madd(w, x0, b0);
      b1 = madd(w, x1, b1);
      w = v128.load32_splat(a, 2 * CHANNEL_ROW);
      c0 = madd(w, x0, c0);
      c1 = madd(w, x1, c1);
      w = v128.load32_splat(a, 3 * CHANNEL_ROW);
      d0 = madd(w, x0, d0);
      d1 = madd(w, x1, d1);
    }
    let r0 = madd(a0, v128.load(weights), v128.load(along));
    let r1 = madd(a1, v128.load(weights, 16), v128.load(along, 16));
    r0 = madd(b0, v128.load(weights, STEP_ROW), r0);
    r1 = madd(b1, v128.load(weights, STEP_ROW + 16), r1);
    r0 = madd(c0, v128.load(weights, 2 * STEP_ROW), r0);
    r1 = madd(c1, v128.load(weights, 2 * STEP_ROW + 16), r1);
    r0 = madd(d0, v128.load(weights, 3 * STEP_ROW), r0);
    r1 = madd(d1, v128.load(weights, 3 * STEP_ROW + 16), r1);
    v128.store(along, r0);
    v128.store(along, r1, 16);
    addTile(to, a0, a1, b0, b1, c0, c1, d0, d1);
  }
}
