/** What the kernels of the chunk scan share: their arguments, where things lie, the step sizes and decays. */

import { exp4, softplus4 } from '../as/simd.as';

/** Steps of a chunk. */
export const CHUNK: i32 = 32;

@unmanaged
export class ChunkScanArguments {
  x: usize;
  xStride: i32;
  b: usize;
  bStride: i32;
  c: usize;
  cStride: i32;
  dt: usize;
  dtStride: i32;
  y: usize;
  yStride: i32;
  dtBias: usize;
  aLog: usize;
  d: usize;
  dHasHdim: i32;
  dtMin: f32;
  dtMax: f32;
  /** 0 when there is no state: it starts at zero and is dropped. */
  slotTable: usize;
  /** 0: batch row b uses slot b. */
  slots: usize;
  /** 0: every step is real. */
  lengths: usize;
  stateOffset: u32;
  /** Batch rows of this call. */
  batchStart: i32;
  batchCount: i32;
  length: i32;
  heads: i32;
  headdim: i32;
  dState: i32;
  /** Written by `chunkScanPrepare`, read by `chunkScan`. */
  panels: usize;
  inputs: usize;
  steps: usize;
  decays: usize;
  /** Memory of its own for each thread. */
  own: usize;
  ownBytes: u32;
}

/** State of a batch row, (full heads * P) rows of N; 0 when there is none. */
@inline
export function stateOf(a: ChunkScanArguments, b: i32): usize {
  if (a.slotTable == 0) return 0;
  const slot = a.slots != 0 ? load<i32>(a.slots + (<usize>b << 2)) : b;
  return <usize>load<u32>(a.slotTable + (<usize>slot << 2)) + <usize>a.stateOffset;
}

/** Real steps of a batch row. */
@inline
export function stepsOf(a: ChunkScanArguments, b: i32): i32 {
  return a.lengths != 0 ? max(0, min(a.length, load<i32>(a.lengths + (<usize>b << 2)))) : a.length;
}

/** clamp(softplus(raw + bias)). */
@inline
export function stepSize(a: ChunkScanArguments, raw: v128, bias: v128): v128 {
  const soft = softplus4(f32x4.add(raw, bias));
  return f32x4.min(f32x4.max(soft, f32x4.splat(a.dtMin)), f32x4.splat(a.dtMax));
}

/** The rate of decay, -A = exp(aLog). */
@inline
export function rateOf(aLog: v128): v128 {
  return exp4(aLog);
}

/** exp(-rate * step): above zero, so that products of it may be divided by. */
@inline
export function decayOf(rate: v128, step: v128): v128 {
  return exp4(f32x4.neg(f32x4.mul(rate, step)));
}

/** Four lanes from `base`, each at its own offset in bytes. */
@inline
export function gather(base: usize, o0: u32, o1: u32, o2: u32, o3: u32): v128 {
  let v = v128.load32_zero(base + <usize>o0);
  v = v128.load_lane<f32>(base + <usize>o1, v, 1);
  v = v128.load_lane<f32>(base + <usize>o2, v, 2);
  return v128.load_lane<f32>(base + <usize>o3, v, 3);
}

@inline
export function round4(n: i32): i32 {
  return (n + 3) & ~3;
}

/** Bytes of one panel of 4 steps. */
@inline
export function panelBytes(a: ChunkScanArguments): usize {
  return <usize>(round4(a.dState) + CHUNK) << 4;
}

/** Transposes the 4 x 4 floats at `from` (rows `fromStep` bytes apart) to `to` (rows `toStep` apart); true if any is not 0. */
@inline
export function transpose4(from: usize, fromStep: usize, to: usize, toStep: usize): bool {
  const r0 = v128.load(from);
  const r1 = v128.load(from + fromStep);
  const r2 = v128.load(from + 2 * fromStep);
  const r3 = v128.load(from + 3 * fromStep);
  const a = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5);
  const b = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7);
  const c = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
  const d = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
  v128.store(to, v128.shuffle<f32>(a, c, 0, 1, 4, 5));
  v128.store(to + toStep, v128.shuffle<f32>(a, c, 2, 3, 6, 7));
  v128.store(to + 2 * toStep, v128.shuffle<f32>(b, d, 0, 1, 4, 5));
  v128.store(to + 3 * toStep, v128.shuffle<f32>(b, d, 2, 3, 6, 7));
  return v128.any_true(v128.or(v128.or(r0, r1), v128.or(r2, r3)));
}
