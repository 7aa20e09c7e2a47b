/**
 * The random numbers of `dropout` and `drop_path` as device code: Philox 4x32-10 (Salmon et al. 2011) with the counter
 * (number / 4 in 64 bits, stream, 1), as `src/tensor/random.ts` computes it.
 */

export const PHILOX_SOURCE = String.raw`
__device__ __forceinline__ u32 multiply_high(u32 a, u32 b) { return (u32)(((u64)a * b) >> 32); }
/* The four 32-bit numbers of a block of the stream. */
__device__ __forceinline__ void philox(u64 block, u32 stream, u32 key0, u32 key1, u32 (&out)[4]) {
  u32 c0 = (u32)block, c1 = (u32)(block >> 32), c2 = stream, c3 = 1;
  #pragma unroll
  for (int round = 0; round < 10; round++) {
    u32 high0 = multiply_high(0xd2511f53u, c0), low0 = 0xd2511f53u * c0;
    u32 high1 = multiply_high(0xcd9e8d57u, c2), low1 = 0xcd9e8d57u * c2;
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}
/* 1 / (1 - rate), or 0 where the number, uniform in [0, 1), lies below the rate. */
__device__ __forceinline__ float keep_scale(u32 bits, float rate) {
  return (float)(bits >> 8) * 5.9604644775390625e-8f < rate ? 0.0f : 1.0f / (1.0f - rate);
}
`;
