/**
 * The state-space recurrence step by step: decoding, and calls too short for products of matrices.
 *
 * Four channels are walked through all steps at once, their N state elements in vectors. States are updated where
 * they lie unless their rows are no whole vectors; then, or without a state, they go through the thread's own memory.
 * That begins with the step sizes and decays of the four channels, which the next four use too if all are one head.
 */

import { madd, padded, shareStart } from '../as/simd.as';
import { ChunkScanArguments, decayOf, gather, rateOf, stateOf, stepSize, stepsOf } from './arguments.as';

export function chunkScanStep(args: usize, thread: i32, threads: i32): void {
  const a = changetype<ChunkScanArguments>(args);
  const channels = a.heads * a.headdim;
  const groups = padded(channels) >> 2;
  const total = a.batchCount * groups;
  const end = shareStart(total, 1, thread + 1, threads);
  const own = a.own + <usize>thread * <usize>a.ownBytes;
  let known = -1;
  for (let unit = shareStart(total, 1, thread, threads); unit < end; unit++) {
    const row = unit / groups;
    const channel = (unit - row * groups) << 2;
    if (channel == 0) known = -1;
    known = fourChannels(a, a.batchStart + row, channel, channels, own, known);
  }
}

/** Copies `count` state rows of N to or from rows of whole vectors. */
function copyRows(to: usize, toBytes: usize, from: usize, fromBytes: usize, count: i32, dState: i32): void {
  for (let i = 0; i < count; i++) memory.copy(to + <usize>i * toBytes, from + <usize>i * fromBytes, <usize>dState << 2);
}

/** Returns the head whose decays `own` now holds, -1 when they are of several; `known` is what it returned before. */
function fourChannels(a: ChunkScanArguments, b: i32, channel: i32, channels: i32, own: usize, known: i32): i32 {
  const steps = stepsOf(a, b);
  const batchRow = <usize>b * <usize>a.length;
  const y = a.y + ((batchRow * <usize>a.yStride + <usize>channel) << 2);
  const yStep = <usize>a.yStride << 2;
  for (let t = channel < channels ? steps : 0; t < a.length; t++) v128.store(y + <usize>t * yStep, f32x4.splat(0));
  if (channel >= channels || steps == 0) return -1;

  const dState = a.dState;
  const stateBytes = <usize>dState << 2;
  const count = min(4, channels - channel);
  const state = stateOf(a, b);
  const inPlace = state != 0 && count == 4 && (dState & 3) == 0;
  const kept = state + <usize>channel * stateBytes;
  const rowBytes = inPlace ? stateBytes : <usize>padded(dState) << 2;
  const s = inPlace ? kept : own + (<usize>a.length << 5);
  if (!inPlace) {
    memory.fill(s, 0, rowBytes << 2);
    if (state != 0) copyRows(s, rowBytes, kept, stateBytes, count, dState);
  }

  const n4 = <usize>((dState + 3) & ~3) << 2;
  const last = channels - 1;
  const P = a.headdim;
  const h0 = (channel / P) << 2;
  const h1 = (min(channel + 1, last) / P) << 2;
  const h2 = (min(channel + 2, last) / P) << 2;
  const h3 = (min(channel + 3, last) / P) << 2;
  const head = h0 == h3 ? h0 : -1;
  if (head < 0 || head != known) {
    const bias = gather(a.dtBias, h0, h1, h2, h3);
    const rate = rateOf(gather(a.aLog, h0, h1, h2, h3));
    for (let t = 0; t < steps; t++) {
      const dt = stepSize(a, gather(a.dt + (((batchRow + <usize>t) * <usize>a.dtStride) << 2), h0, h1, h2, h3), bias);
      v128.store(own + (<usize>t << 5), dt);
      v128.store(own + (<usize>t << 5), decayOf(rate, dt), 16);
    }
  }
  const d = a.dHasHdim ? v128.load(a.d + (<usize>channel << 2)) : gather(a.d, h0, h1, h2, h3);
  const x = a.x + ((batchRow * <usize>a.xStride + <usize>channel) << 2);
  for (let t = 0; t < steps; t++) {
    const row = batchRow + <usize>t;
    const input = v128.load(x + ((<usize>t * <usize>a.xStride) << 2));
    const decay = v128.load(own + (<usize>t << 5), 16);
    const u = f32x4.mul(v128.load(own + (<usize>t << 5)), input);
    const b = a.b + ((row * <usize>a.bStride) << 2);
    const c = a.c + ((row * <usize>a.cStride) << 2);
    const y0 = stateRow(s, n4, b, c, f32x4.splat(f32x4.extract_lane(decay, 0)), f32x4.splat(f32x4.extract_lane(u, 0)));
    const y1 = stateRow(s + rowBytes, n4, b, c, f32x4.splat(f32x4.extract_lane(decay, 1)), f32x4.splat(f32x4.extract_lane(u, 1)));
    const y2 = stateRow(s + 2 * rowBytes, n4, b, c, f32x4.splat(f32x4.extract_lane(decay, 2)), f32x4.splat(f32x4.extract_lane(u, 2)));
    const y3 = stateRow(s + 3 * rowBytes, n4, b, c, f32x4.splat(f32x4.extract_lane(decay, 3)), f32x4.splat(f32x4.extract_lane(u, 3)));
    // Sums of the lanes of four vectors at once: transpose and add.
    const low = f32x4.add(v128.shuffle<f32>(y0, y1, 0, 4, 1, 5), v128.shuffle<f32>(y0, y1, 2, 6, 3, 7));
    const high = f32x4.add(v128.shuffle<f32>(y2, y3, 0, 4, 1, 5), v128.shuffle<f32>(y2, y3, 2, 6, 3, 7));
    const sum = f32x4.add(v128.shuffle<f32>(low, high, 0, 1, 4, 5), v128.shuffle<f32>(low, high, 2, 3, 6, 7));
    v128.store(y + <usize>t * yStep, madd(d, input, sum));
  }
  if (!inPlace && state != 0) copyRows(kept, stateBytes, s, rowBytes, count, dState);
  return head;
}

/**
 * One step of one state row: S = S * decay + u * b; returns S c, lane by lane. One row after the other reads memory in
 * order: several at once run at a third of the speed when the state does not fit a core's cache.
 */
@inline
function stateRow(s: usize, bytes: usize, b: usize, c: usize, decay: v128, u: v128): v128 {
  let y0 = f32x4.splat(0);
  let y1 = y0;
  let y2 = y0;
  let y3 = y0;
  const end = s + bytes;
  const whole = s + (bytes & ~63);
  for (; s < whole; s += 64, b += 64, c += 64) {
    const v0 = madd(v128.load(s), decay, f32x4.mul(u, v128.load(b)));
    v128.store(s, v0);
    y0 = madd(v0, v128.load(c), y0);
    const v1 = madd(v128.load(s, 16), decay, f32x4.mul(u, v128.load(b, 16)));
    v128.store(s, v1, 16);
    y1 = madd(v1, v128.load(c, 16), y1);
    const v2 = madd(v128.load(s, 32), decay, f32x4.mul(u, v128.load(b, 32)));
    v128.store(s, v2, 32);
    y2 = madd(v2, v128.load(c, 32), y2);
    const v3 = madd(v128.load(s, 48), decay, f32x4.mul(u, v128.load(b, 48)));
    v128.store(s, v3, 48);
    y3 = madd(v3, v128.load(c, 48), y3);
  }
  for (; s < end; s += 16, b += 16, c += 16) {
    const v = madd(v128.load(s), decay, f32x4.mul(u, v128.load(b)));
    v128.store(s, v);
    y0 = madd(v, v128.load(c), y0);
  }
  return f32x4.add(f32x4.add(y0, y1), f32x4.add(y2, y3));
}
