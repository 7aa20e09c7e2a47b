/**
 * CUDA text that both kernels of the chunked gradient begin with: loads of a chunk into shared memory, step sizes and
 * decays, and the accumulation of a state in registers.
 *
 * A chunk is Q = 64 steps, in 4 strips of 16. A block has HEADS heads of one sequence; a head has PARTS units of PW
 * channels, HP in all, so channels are R rows of the state (a multiple of 16), unit u from row u PW on, with zeros
 * behind a head's P channels. The state has NP columns, N rounded up to 16. Operands of products are T16 in shared
 * memory, rows padded by 8 elements so that ldmatrix meets no bank twice; sums are float32.
 *
 * Lanes of a warp in a 16 x 8 tile of sums: lane = 4 g + t has rows g and g + 8 at columns 2 t and 2 t + 1.
 */

export const CHUNKED_SOURCE = String.raw`
#define Q 64
#define THREADS 256
#define UNITS (HEADS * PARTS)
#define HP (PARTS * PW)
#define BS (NP + 8)
#define XS (R + 8)
/* Least logarithm (base 2) of a step's decay: what it leaves is below the smallest float. */
#define LEAST_LOG (-128.0f)

template <typename A, typename B> struct Same { static constexpr bool value = false; };
template <typename A> struct Same<A, A> { static constexpr bool value = true; };

__device__ __forceinline__ void unpack2(u32 pair, float &low, float &high) {
  T16 l, h;
  l.bits = (u16)pair;
  h.bits = (u16)(pair >> 16);
  low = to_float(l);
  high = to_float(h);
}

/* Shared-memory row addresses for ldmatrix; row and column say where a 16 x 16 block of elements begins. */
/* As the left operand (16 rows, k = 16), stored row by row. */
__device__ __forceinline__ const T16 *left_rows(const T16 *from, int stride, int row, int column) {
  int lane = threadIdx.x & 31;
  return from + (row + (lane & 15)) * stride + column + (lane >> 4) * 8;
}
/* As the left operand, stored [k][rows]: for ldmatrix4_transposed. */
__device__ __forceinline__ const T16 *left_columns(const T16 *from, int stride, int k, int row) {
  int lane = threadIdx.x & 31;
  return from + (k + (lane & 7) + (lane >> 4) * 8) * stride + row + ((lane >> 3) & 1) * 8;
}
/* As the right operand (k = 16, two tiles of 8 columns), stored [columns][k]. */
__device__ __forceinline__ const T16 *right_columns(const T16 *from, int stride, int column, int k) {
  int lane = threadIdx.x & 31;
  return from + (column + (lane & 7) + (lane >> 4) * 8) * stride + k + ((lane >> 3) & 1) * 8;
}
/* As the right operand, stored [k][columns]: for ldmatrix4_transposed (ldmatrix2_transposed: one tile). */
__device__ __forceinline__ const T16 *right_rows(const T16 *from, int stride, int k, int column) {
  int lane = threadIdx.x & 31;
  return from + (k + (lane & 15)) * stride + column + (lane >> 4) * 8;
}

__device__ __forceinline__ void mma_pair(float (&d)[4], float (&e)[4], const u32 (&a)[4], const u32 (&b)[4]) {
  u32 low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
  mma16816<T16>(d, a, low);
  mma16816<T16>(e, a, high);
}

/* Lane t of 4 has columns 2 t and 2 t + 1 of 4 tiles; afterwards all 8 columns of tile t. */
__device__ __forceinline__ void gather_tile(u32 (&v)[4]) {
  int lane = threadIdx.x & 31;
  bool odd = lane & 1, high = lane & 2;
  u32 a = __shfl_xor_sync(FULL_WARP, odd ? v[0] : v[1], 1), b = __shfl_xor_sync(FULL_WARP, odd ? v[2] : v[3], 1);
  if (odd) v[0] = a, v[2] = b; else v[1] = a, v[3] = b;
  a = __shfl_xor_sync(FULL_WARP, high ? v[0] : v[2], 2);
  b = __shfl_xor_sync(FULL_WARP, high ? v[1] : v[3], 2);
  if (high) v[0] = a, v[1] = b; else v[2] = a, v[3] = b;
}

/* Channels of a block's heads at rows first.. (count of them real, Q in all), to [Q][XS]; starts copies of 16 bytes. */
template <typename T> __device__ __forceinline__ void load_channels(T16 *to, const T *from, int stride, i64 first, int count, int head,
    int heads) {
  from += first * stride + (i64)head * P;
  if constexpr (Same<T, T16>::value && P % 8 == 0 && P == HP) {
    #pragma unroll
    for (int i = threadIdx.x; i < Q * (HEADS * P / 8); i += THREADS) {
      int row = i / (HEADS * P / 8), v = i % (HEADS * P / 8);
      if (v >= heads * (P / 8)) continue;
      bool live = row < count;
      copy_async16(to + row * XS + v * 8, from + (i64)(live ? row : 0) * stride + v * 8, live);
    }
  } else if constexpr (Same<T, T16>::value && P % 4 == 0) {
    #pragma unroll 8
    for (int i = threadIdx.x; i < Q * (HEADS * P / 4); i += THREADS) {
      int row = i / (HEADS * P / 4), v = i % (HEADS * P / 4), h = v / (P / 4), p = v % (P / 4) * 4;
      if (h >= heads) continue;
      uint2 x = make_uint2(0u, 0u);
      if (row < count) x = *(const uint2 *)(from + (i64)row * stride + v * 4);
      *(uint2 *)(to + row * XS + h * HP + p) = x;
    }
  } else {
    int channels = heads * P;
    for (int i = threadIdx.x; i < Q * channels; i += THREADS) {
      int row = i / channels, v = i - row * channels, h = v / P, p = v % P;
      to[row * XS + h * HP + p] = from_float<T16>(row < count ? to_float(from[(i64)row * stride + v]) : 0.0f);
    }
  }
}

/* Rows of b or c, to [Q][BS], in the same way. */
template <typename T> __device__ __forceinline__ void load_state_rows(T16 *to, const T *from, int stride, i64 first, int count) {
  from += first * stride;
  if constexpr (Same<T, T16>::value && N % 8 == 0) {
    #pragma unroll
    for (int i = threadIdx.x; i < Q * (NP / 8); i += THREADS) {
      int row = i / (NP / 8), v = i % (NP / 8);
      bool live = row < count && v < N / 8;
      copy_async16(to + row * BS + v * 8, from + (live ? (i64)row * stride + v * 8 : 0), live);
    }
  } else {
    for (int i = threadIdx.x; i < Q * NP; i += THREADS) {
      int row = i / NP, n = i % NP;
      to[row * BS + n] = from_float<T16>(row < count && n < N ? to_float(from[(i64)row * stride + n]) : 0.0f);
    }
  }
}

/* The same on all lanes, as the compiler can tell. */
__device__ __forceinline__ int warp_index() { return __shfl_sync(FULL_WARP, (int)threadIdx.x >> 5, 0); }

__device__ __forceinline__ void zero_shared(void *from, int bytes) {
  for (int i = threadIdx.x; i < (bytes + 15) / 16; i += THREADS) ((uint4 *)from)[i] = make_uint4(0u, 0u, 0u, 0u);
}

__device__ __forceinline__ float rate_of(const float *a_log, int head) { return fminf(expf(a_log[head]), 3e38f); }

/* dt as it comes: a lane has two steps of the heads warp, warp + 8, .. of the block. */
#define RAW ((HEADS + 7) / 8)
__device__ __forceinline__ void load_raw_steps(float (&raw)[RAW][2], const TDT *dt, int dt_stride, i64 first, int count, int head, int heads) {
  #pragma unroll
  for (int i = 0; i < RAW; i++) {
    int h = (threadIdx.x >> 5) + 8 * i, s = 2 * (threadIdx.x & 31);
    #pragma unroll
    for (int j = 0; j < 2; j++) raw[i][j] = h < heads && s + j < count ? to_float(dt[(first + s + j) * dt_stride + head + h]) : 0.0f;
  }
}

/*
 * Of a chunk and the heads from head on: steps dt and logs (base 2) of the product of the decays up to and with each
 * step, [HEADS][Q]; slopes of ddt too where wanted. Steps from count on have dt = 0.
 */
template <bool SLOPES> __device__ __forceinline__ void find_steps(float *steps, float *logs, float *slopes, const float (&raws)[RAW][2],
    int count, int head, int heads, const float *dt_bias, const float *a_log, float dt_min, float dt_max) {
  int lane = threadIdx.x & 31;
  #pragma unroll
  for (int i = 0; i < RAW; i++) {
    int h = (threadIdx.x >> 5) + 8 * i;
    if (h >= heads) break;
    float bias = dt_bias[head + h], rate = rate_of(a_log, head + h) * -1.4426950408889634f, step[2], log[2];
    #pragma unroll
    for (int j = 0; j < 2; j++) {
      int s = 2 * lane + j;
      float raw = raws[i][j] + bias, soft = softplus(raw);
      step[j] = s < count ? fminf(fmaxf(soft, dt_min), dt_max) : 0.0f;
      log[j] = s < count ? fmaxf(rate * step[j], LEAST_LOG) : 0.0f;
      steps[h * Q + s] = step[j];
      if (SLOPES) slopes[h * Q + s] = soft < dt_min || soft > dt_max ? 0.0f : raw > 20.0f ? 1.0f : sigmoid(raw);
    }
    float sum = log[0] + log[1], total = sum;
    #pragma unroll
    for (int distance = 1; distance < 32; distance <<= 1) {
      float before = __shfl_up_sync(FULL_WARP, total, distance);
      if (lane >= distance) total += before;
    }
    float before = __shfl_up_sync(FULL_WARP, total, 1);
    logs[h * Q + 2 * lane] = (lane ? before : 0.0f) + log[0];
    logs[h * Q + 2 * lane + 1] = total;
  }
}

/*
 * A state (R, NP) in the registers of the block's 8 warps: WR by WN of them, each with MT tiles of 16 rows (every WR-th)
 * and UN blocks of 16 columns (neighbours).
 */
#define WN (8 / WR)
#define MT ((R / 16 + WR - 1) / WR)
#define UN ((NP / 16 + WN - 1) / WN)
struct State {
  float v[MT][UN][2][4] = {};
  int warp_row = warp_index() / WN, warp_column = warp_index() % WN;

  __device__ __forceinline__ int row(int m) const { return (warp_row + WR * m) * 16; }
  __device__ __forceinline__ int column(int n) const { return (warp_column * UN + n) * 16; }
  /* Whether there are such rows and columns. */
  __device__ __forceinline__ bool has_row(int m) const { return MT * WR * 16 == R || row(m) < R; }
  __device__ __forceinline__ bool has_column(int n) const { return UN * WN * 16 == NP || column(n) < NP; }

  /* Times what the chunk leaves of it, plus rows' (Q, R) columns (Q, NP), of which count steps are not zero. */
  __device__ __forceinline__ void update(const T16 *rows, const T16 *columns, const float *logs, int count) {
    int g = (threadIdx.x & 31) >> 2;
    #pragma unroll
    for (int m = 0; m < MT; m++) {
      if (!has_row(m)) continue;
      float left[2];
      #pragma unroll
      for (int j = 0; j < 2; j++) {
        int head = (row(m) + 8 * j + g) / HP;
        left[j] = head < HEADS ? fast_exp2(logs[head * Q + Q - 1]) : 0.0f;
      }
      #pragma unroll
      for (int n = 0; n < UN; n++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) v[m][n][i >> 2][i & 3] *= left[(i >> 1) & 1];
      }
    }
    #pragma unroll
    for (int k = 0; k < Q; k += 16) {
      if (k >= count) break;
      u32 a[MT][4];
      #pragma unroll
      for (int m = 0; m < MT; m++) if (has_row(m)) ldmatrix4_transposed(a[m], left_columns(rows, XS, k, row(m)));
      #pragma unroll
      for (int n = 0; n < UN; n++) {
        if (!has_column(n)) continue;
        u32 b[4];
        ldmatrix4_transposed(b, right_rows(columns, BS, k, column(n)));
        #pragma unroll
        for (int m = 0; m < MT; m++) if (has_row(m)) mma_pair(v[m][n][0], v[m][n][1], a[m], b);
      }
    }
  }
};
`;
