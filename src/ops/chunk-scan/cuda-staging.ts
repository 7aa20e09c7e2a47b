/** Device code of the chunked CUDA kernel of the chunk scan: its sizes, and 16-bit rows to and from shared memory. */

export const STAGING = String.raw`
#define LOG2E 1.4426950408889634f
#define Q 64
/* Tiles of the state: KT of 16 in n, MT of 16 in p. */
#define KT ((N + 15) / 16)
#define MT ((TILES + 1) / 2)
/* Tiles of 16 steps whose y are computed together: four when there are registers for them. */
#define PASS (HEADS * TILES <= 2 ? 4 : 2)
/* Elements from row to row of b, c and x in shared memory, such that eight rows lie in different banks. */
#define NS (16 * KT + 8)
#define XS (XP % 8 == 0 ? 8 * XP : 8 * (XP | 1))
#define STAGE (Q * (2 * NS + XS))

/* Where an element of x lies: rows of a multiple of 128 bytes have their 16-byte pieces permuted. */
__device__ __forceinline__ int x_place(int row, int column) {
  return XP % 8 == 0 ? row * XS + ((((column >> 3) ^ row) & 7) << 3 | (column & ~63) | (column & 7)) : row * XS + column;
}

/* Stages eight columns of a row, zeros from count on (none or all of the eight if WHOLE) or for a step that is not there. */
template <bool WHOLE> __device__ __forceinline__ void stage8(HALF *to, const HALF *from, int count, bool valid) {
  if (WHOLE || count >= 8) copy_async16(to, from, valid && count > 0);
  else for (int e = 0; e < 8; e++) to[e] = valid && e < count ? from[e] : from_float<HALF>(0.0f);
}
template <bool WHOLE, typename T> __device__ __forceinline__ void stage8(HALF *to, const T *from, int count, bool valid) {
  for (int e = 0; e < 8; e++) to[e] = from_float<HALF>(valid && e < count ? to_float(from[e]) : 0.0f);
}
__device__ __forceinline__ void store8(HALF *to, const HALF *from) { *(uint4 *)to = *(const uint4 *)from; }
template <typename T> __device__ __forceinline__ void store8(T *to, const HALF *from) {
  for (int e = 0; e < 8; e++) to[e] = from_float<T>(to_float(from[e]));
}

__device__ __forceinline__ float low_half(u32 pair) { HALF x; x.bits = (u16)pair; return to_float(x); }
__device__ __forceinline__ float high_half(u32 pair) { HALF x; x.bits = (u16)(pair >> 16); return to_float(x); }
__device__ __forceinline__ u32 scale_pair(u32 pair, float low, float high) {
  return pack2<HALF>(low_half(pair) * low, high_half(pair) * high);
}
`;
