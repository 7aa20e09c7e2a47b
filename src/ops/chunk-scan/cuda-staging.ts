/** Device code of the chunked CUDA kernel of the chunk scan: its sizes, and 16-bit rows to and from shared memory. */

export const STAGING = String.raw`
#define LOG2E 1.4426950408889634f
#define Q 64
/* Tiles of 16 in n, pairs of tiles of 8 in p, and accumulators (times four, of a lane) of a head's state. */
#define KT ((N + 15) / 16)
#define PAIRS (TILES / 2)
#define STATES (KT * TILES)
/* Tiles of 16 steps whose y are computed together: four when there are registers for them. */
#define PASS (HEADS * TILES <= 2 && WARPS <= 8 ? 4 : 2)
/* Elements from row to row of b, c and x in shared memory, such that eight rows lie in different banks. */
#define NS (16 * KT + 8)
#define XS (8 * (XP | 1))
/* dt in shared memory: DP pieces of 16 bytes a row, and elements from row to row. */
#define PIECE (16 / (int)sizeof(TDT))
#define DP ((((WARPS + PARTS - 1) / PARTS + (WARPS % PARTS > 0)) * HEADS + 2 * PIECE - 2) / PIECE)
#define DS (DP * PIECE)
#define STAGE ((2 - STATES_ONLY) * Q * NS)
#define SCORES (10 * 256)
/* Floats of a head in a table: see prepare. */
#define TABLE (2 * Q + 160)

__device__ __forceinline__ int x_place(int row, int column) { return row * XS + column; }

/* Stages eight columns of a row, zeros from count on (none or all of the eight if WHOLE) or for a step that is not there. */
template <bool WHOLE> __device__ __forceinline__ void stage8(HALF *to, const HALF *from, int count, bool valid) {
  if (WHOLE || count >= 8) copy_async16(to, from, valid && count > 0);
  else for (int e = 0; e < 8; e++) to[e] = valid && e < count ? from[e] : from_float<HALF>(0.0f);
}
template <bool WHOLE, typename T> __device__ __forceinline__ void stage8(HALF *to, const T *from, int count, bool valid) {
  for (int e = 0; e < 8; e++) to[e] = from_float<HALF>(valid && e < count ? to_float(from[e]) : 0.0f);
}
__device__ __forceinline__ constexpr int power_of_two(int n) { return n <= 1 ? 1 : 2 * power_of_two((n + 1) / 2); }
/*
 * Stages a chunk's rows of PIECES times eight columns, count of them real, to where place(row, column) says. A thread has
 * the same columns of each of its rows.
 */
template <int PIECES, bool WHOLE, typename T, typename PLACE>
__device__ __forceinline__ void stage_rows(HALF *to, PLACE place, const T *from, int stride, int columns, int count) {
  constexpr int ACROSS = power_of_two(PIECES), STEP = 32 * WARPS / ACROSS;
  int column = threadIdx.x % ACROSS * 8, row = threadIdx.x / ACROSS;
  if (column >= 8 * PIECES) return;
  from += (i64)row * stride + column;
  if (Q % STEP == 0 && count >= Q && column + 8 <= columns) {
    #pragma unroll
    for (int k = 0; k * STEP < Q; k++) stage8<true>(to + place(row + k * STEP, column), from + (i64)(k * STEP) * stride, 8, true);
  } else {
    for (int r = row; r < Q; r += STEP, from += (i64)STEP * stride) stage8<WHOLE>(to + place(r, column), from, columns - column, r < count);
  }
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

/* As step_size, with the device's approximations: log1p(e) by its series in e / (2 + e) where log2 of 1 + e has few digits. */
__device__ __forceinline__ float quick_step(float raw, float bias, float low, float high) {
  float x = raw + bias, e = fast_exp(fminf(x, 30.0f)), z = e * fast_reciprocal(2.0f + e), square = z * z;
  float series = 2.0f * z * fmaf(square, fmaf(square, fmaf(square, 1.0f / 7.0f, 0.2f), 1.0f / 3.0f), 1.0f);
  float soft = e < 0.25f ? series : fast_log2(1.0f + e) * 0.6931471805599453f;
  return fminf(fmaxf(x > 20.0f ? x : soft, low), high);
}
`;
