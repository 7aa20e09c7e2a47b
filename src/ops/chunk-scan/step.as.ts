/**
 * The state-space recurrence step by step: decoding, and calls too short for products of matrices.
 *
 * Four channels are walked through all steps at once, their N state elements in vectors. States are updated where
 * they lie unless their rows are no whole vectors; then, or without a state, they go through the thread's own memory.
 */

import { madd, padded, shareStart } from '../as/simd.as';
import { ChunkScanArguments, decayOf, stateOf, stepSize, stepsOf } from './arguments.as';

export function chunkScanStep(args: usize, thread: i32, threads: i32): void {
  const a = changetype<ChunkScanArguments>(args);
  const channels = a.heads * a.headdim;
  const groups = padded(channels) >> 2;
  const total = a.batchCount * groups;
  const end = shareStart(total, 1, thread + 1, threads);
  const own = a.own + <usize>thread * <usize>a.ownBytes;
  for (let unit = shareStart(total, 1, thread, threads); unit < end; unit++) {
    const row = unit / groups;
    fourChannels(a, a.batchStart + row, (unit - row * groups) << 2, channels, own);
  }
}

/** Four lanes of `base`, one for each of the heads. */
@inline
function gather(base: usize, h0: i32, h1: i32, h2: i32, h3: i32): v128 {
  let v = v128.load32_zero(base + (<usize>h0 << 2));
  v = v128.load_lane<f32>(base + (<usize>h1 << 2), v, 1);
  v = v128.load_lane<f32>(base + (<usize>h2 << 2), v, 2);
  return v128.load_lane<f32>(base + (<usize>h3 << 2), v, 3);
}

/** Copies `count` state rows of N to or from rows of whole vectors. */
function copyRows(to: usize, toBytes: usize, from: usize, fromBytes: usize, count: i32, dState: i32): void {
  for (let i = 0; i < count; i++) memory.copy(to + <usize>i * toBytes, from + <usize>i * fromBytes, <usize>dState << 2);
}

function fourChannels(a: ChunkScanArguments, b: i32, channel: i32, channels: i32, own: usize): void {
  const steps = stepsOf(a, b);
  const batchRow = <usize>b * <usize>a.length;
  const y = a.y + ((batchRow * <usize>a.yStride + <usize>channel) << 2);
  const yStep = <usize>a.yStride << 2;
  for (let t = channel < channels ? steps : 0; t < a.length; t++) v128.store(y + <usize>t * yStep, f32x4.splat(0));
  if (channel >= channels || steps == 0) return;

  const dState = a.dState;
  const stateBytes = <usize>dState << 2;
  const count = min(4, channels - channel);
  const state = stateOf(a, b);
  const inPlace = state != 0 && count == 4 && (dState & 3) == 0;
  const stateRow = state + <usize>channel * stateBytes;
  const rowBytes = inPlace ? stateBytes : <usize>padded(dState) << 2;
  const s = inPlace ? stateRow : own;
  if (!inPlace) {
    memory.fill(s, 0, rowBytes << 2);
    if (state != 0) copyRows(s, rowBytes, stateRow, stateBytes, count, dState);
  }

  const last = channels - 1;
  const P = a.headdim;
  const h0 = channel / P;
  const h1 = min(channel + 1, last) / P;
  const h2 = min(channel + 2, last) / P;
  const h3 = min(channel + 3, last) / P;
  const bias = gather(a.dtBias, h0, h1, h2, h3);
  const aLog = gather(a.aLog, h0, h1, h2, h3);
  const d = a.dHasHdim ? v128.load(a.d + (<usize>channel << 2)) : gather(a.d, h0, h1, h2, h3);
  const x = a.x + ((batchRow * <usize>a.xStride + <usize>channel) << 2);
  for (let t = 0; t < steps; t++) {
    const row = batchRow + <usize>t;
    const dt = stepSize(a, gather(a.dt + ((row * <usize>a.dtStride) << 2), h0, h1, h2, h3), bias);
    const input = v128.load(x + ((<usize>t * <usize>a.xStride) << 2));
    const sum = recurrence(
      s,
      rowBytes,
      a.b + ((row * <usize>a.bStride) << 2),
      a.c + ((row * <usize>a.cStride) << 2),
      (dState + 3) & ~3,
      decayOf(aLog, dt),
      f32x4.mul(dt, input),
    );
    v128.store(y + <usize>t * yStep, madd(d, input, sum));
  }
  if (!inPlace && state != 0) copyRows(stateRow, stateBytes, s, rowBytes, count, dState);
}

/** One step of four state rows: S = S * decay + u * b; returns S c. */
@inline
function recurrence(s: usize, rowBytes: usize, b: usize, c: usize, dState: i32, decay: v128, u: v128): v128 {
  const k0 = v128.shuffle<f32>(decay, decay, 0, 0, 0, 0);
  const k1 = v128.shuffle<f32>(decay, decay, 1, 1, 1, 1);
  const k2 = v128.shuffle<f32>(decay, decay, 2, 2, 2, 2);
  const k3 = v128.shuffle<f32>(decay, decay, 3, 3, 3, 3);
  const u0 = v128.shuffle<f32>(u, u, 0, 0, 0, 0);
  const u1 = v128.shuffle<f32>(u, u, 1, 1, 1, 1);
  const u2 = v128.shuffle<f32>(u, u, 2, 2, 2, 2);
  const u3 = v128.shuffle<f32>(u, u, 3, 3, 3, 3);
  const s1 = s + rowBytes;
  const s2 = s1 + rowBytes;
  const s3 = s2 + rowBytes;
  let y0 = f32x4.splat(0);
  let y1 = f32x4.splat(0);
  let y2 = f32x4.splat(0);
  let y3 = f32x4.splat(0);
  const end = <usize>dState << 2;
  for (let n: usize = 0; n < end; n += 16) {
    const vb = v128.load(b + n);
    const vc = v128.load(c + n);
    const v0 = madd(v128.load(s + n), k0, f32x4.mul(u0, vb));
    const v1 = madd(v128.load(s1 + n), k1, f32x4.mul(u1, vb));
    const v2 = madd(v128.load(s2 + n), k2, f32x4.mul(u2, vb));
    const v3 = madd(v128.load(s3 + n), k3, f32x4.mul(u3, vb));
    v128.store(s + n, v0);
    v128.store(s1 + n, v1);
    v128.store(s2 + n, v2);
    v128.store(s3 + n, v3);
    y0 = madd(v0, vc, y0);
    y1 = madd(v1, vc, y1);
    y2 = madd(v2, vc, y2);
    y3 = madd(v3, vc, y3);
  }
  // Sums of the lanes of four vectors at once: transpose and add.
  const a0 = f32x4.add(v128.shuffle<f32>(y0, y1, 0, 4, 1, 5), v128.shuffle<f32>(y0, y1, 2, 6, 3, 7));
  const a1 = f32x4.add(v128.shuffle<f32>(y2, y3, 0, 4, 1, 5), v128.shuffle<f32>(y2, y3, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<f32>(a0, a1, 0, 1, 4, 5), v128.shuffle<f32>(a0, a1, 2, 3, 6, 7));
}
