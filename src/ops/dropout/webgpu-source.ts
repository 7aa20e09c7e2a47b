/**
 * The random numbers of `dropout` and `drop_path` in WGSL: Philox 4x32-10 (Salmon et al. 2011) with the counter
 * (number / 4 in 64 bits, stream, 1), as `src/tensor/random.ts` computes it. 64-bit numbers are (low, high) pairs.
 */

import { type WebGpuConstants, f32 } from '../webgpu-kernel.ts';

/** `keep_scale4(number, seed0, seed1)`: what the numbers `number .. number + 3` of the stream `c.stream` scale by. */
export const PHILOX_SOURCE = `
/* The 64-bit product, from 16-bit halves; no sum exceeds 32 bits. */
fn multiply(a: u32, b: u32) -> vec2<u32> {
  let a0 = a & 0xffffu;
  let a1 = a >> 16u;
  let b0 = b & 0xffffu;
  let b1 = b >> 16u;
  let middle = a1 * b0 + ((a0 * b0) >> 16u);
  let middle2 = a0 * b1 + (middle & 0xffffu);
  return vec2<u32>(a * b, a1 * b1 + (middle >> 16u) + (middle2 >> 16u));
}

fn plus(a: vec2<u32>, b: u32) -> vec2<u32> {
  let low = a.x + b;
  return vec2<u32>(low, a.y + select(0u, 1u, low < b));
}

/* The four 32-bit numbers of a block of the stream. */
fn philox(block: vec2<u32>, seed0: u32, seed1: u32) -> vec4<u32> {
  var counter = vec4<u32>(block, c.stream, 1u);
  var key = vec2<u32>(seed0, seed1);
  for (var round = 0; round < 10; round++) {
    let p = multiply(0xd2511f53u, counter.x);
    let q = multiply(0xcd9e8d57u, counter.z);
    counter = vec4<u32>(q.y ^ counter.y ^ key.x, q.x, p.y ^ counter.w ^ key.y, p.x);
    key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
  }
  return counter;
}

fn keep_scale4(number: vec2<u32>, seed0: u32, seed1: u32) -> vec4<f32> {
  let block = vec2<u32>((number.x >> 2u) | (number.y << 30u), number.y >> 2u);
  var bits = philox(block, seed0, seed1);
  let lane = number.x & 3u;
  if (lane != 0u) {
    let next = philox(plus(block, 1u), seed0, seed1);
    switch lane {
      case 1u: { bits = vec4<u32>(bits.yzw, next.x); }
      case 2u: { bits = vec4<u32>(bits.zw, next.xy); }
      default: { bits = vec4<u32>(bits.w, next.xyz); }
    }
  }
  return select(vec4<f32>(c.scale), vec4<f32>(), (bits >> vec4<u32>(8u)) < vec4<u32>(c.below));
}
`;

/** Constants of PHILOX_SOURCE: a number of 24 bits below `rate` drops, others are scaled by 1 / (1 - rate). */
export function keepConstants(stream: number, rate: number): WebGpuConstants {
  return { stream: stream >>> 0, below: Math.ceil(rate * 2 ** 24), scale: f32(rate < 1 ? 1 / (1 - rate) : 0) };
}
