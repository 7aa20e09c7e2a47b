/**
 * Dropout of elements or of whole samples. The mask comes from Philox 4x32-10 (Salmon et al. 2011) with the counter
 * (number / 4 in 64 bits, stream, 1), as `src/tensor/random.ts` computes it; rows are dealt to the threads.
 */

import { padded, shareStart } from '../as/simd.as';

@unmanaged
class DropoutArguments {
  x: usize;
  xStride: i32;
  y: usize;
  yStride: i32;
  /** Two 32-bit halves, and the number of the first sample. */
  seed: usize;
  stream: i32;
  rate: f32;
  rows: i32;
  width: i32;
  /** Rows of a sample. */
  length: i32;
  /** 1: a sample is dropped or kept as a whole. */
  whole: i32;
}

@inline
function multiplyHigh(a: u32, b: u32): u32 {
  return <u32>((<u64>a * <u64>b) >> 32);
}

/** Uniform in [0, 1): number `index` of the stream. */
function uniform(index: u64, stream: u32, seed: usize): f32 {
  let c0 = <u32>(index >> 2);
  let c1 = <u32>(index >> 34);
  let c2: u32 = stream;
  let c3: u32 = 1;
  let k0 = load<u32>(seed);
  let k1 = load<u32>(seed, 4);
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0);
    const low0 = 0xd2511f53 * c0;
    const high1 = multiplyHigh(0xcd9e8d57, c2);
    const low1 = 0xcd9e8d57 * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9e3779b9;
    k1 += 0xbb67ae85;
  }
  const lane = <u32>index & 3;
  const bits = lane == 0 ? c0 : lane == 1 ? c1 : lane == 2 ? c2 : c3;
  return <f32>(bits >> 8) * <f32>5.9604644775390625e-8;
}

export function dropout(address: usize, thread: i32, threads: i32): void {
  const args = changetype<DropoutArguments>(address);
  const width = args.width;
  const scale: f32 = 1 / (1 - args.rate);
  const whole = args.whole != 0;
  const sample = <u64>load<u32>(args.seed, 8);
  const firstRow = sample * <u64>args.length;
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) {
    const x = args.x + (<usize>(row * args.xStride) << 2);
    const y = args.y + (<usize>(row * args.yStride) << 2);
    let keep: f32 = 0;
    if (whole) keep = uniform(sample + <u64>(row / args.length), args.stream, args.seed) < args.rate ? 0 : scale;
    for (let i = 0; i < width; i++) {
      if (!whole) keep = uniform((firstRow + <u64>row) * <u64>width + <u64>i, args.stream, args.seed) < args.rate ? 0 : scale;
      store<f32>(y + (<usize>i << 2), load<f32>(x + (<usize>i << 2)) * keep);
    }
    memory.fill(y + (<usize>width << 2), 0, <usize>(padded(width) - width) << 2);
  }
}
