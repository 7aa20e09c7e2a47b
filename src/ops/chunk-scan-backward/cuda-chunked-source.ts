/**
 * CUDA text that the kernels of the chunked gradient begin with: operands of products in shared memory, step sizes and
 * decays.
 *
 * A chunk is Q = 64 steps, in 4 strips of 16. The state has a row for each channel of all heads, P a head, and NP columns,
 * N rounded up to 16, of which a block has NB. Operands of products are T16 in shared memory, their rows an odd number of
 * 16-byte pieces apart so that ldmatrix meets no bank twice; sums are float32.
 *
 * States and their adjoints lie in scratch memory as (row, border between chunks, NP / 8, channels, 8).
 *
 * Lanes of a warp in a 16 x 8 tile of sums: lane = 4 g + t has rows g and g + 8 at columns 2 t and 2 t + 1.
 */

export const CHUNKED_SOURCE = String.raw`
#define Q 64
#define THREADS (32 * WARPS)
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

/* The same on all lanes, as the compiler can tell. */
__device__ __forceinline__ int warp_index() { return __shfl_sync(FULL_WARP, (int)threadIdx.x >> 5, 0); }

__device__ __forceinline__ void zero_shared(void *from, int bytes) {
  for (int i = threadIdx.x; i < (bytes + 15) / 16; i += THREADS) ((uint4 *)from)[i] = make_uint4(0u, 0u, 0u, 0u);
}

__device__ __forceinline__ float rate_of(float log) { return fminf(expf(log), 3e38f); }

/* Two neighbouring elements. */
template <typename T> __device__ __forceinline__ void store_pair(T *to, float low, float high) { *(u32 *)to = pack2<T>(low, high); }
__device__ __forceinline__ void store_pair(float *to, float low, float high) { *(float2 *)to = make_float2(low, high); }

/*
 * COUNT columns from column on at rows first.. of a chunk, zeros behind its count steps and behind the width, to
 * [Q][stride]; starts copies of 16 bytes where it can.
 */
template <int COUNT, typename T> __device__ __forceinline__ void load_columns(T16 *to, int to_stride, const T *from, int stride, i64 first,
    int count, int column, int width) {
  from += first * stride + column;
  if constexpr (Same<T, T16>::value) {
    /* Where a thread always has the same columns, addresses advance by a constant. */
    if constexpr (THREADS % (COUNT / 8) == 0) {
      int row = threadIdx.x / (COUNT / 8), v = threadIdx.x % (COUNT / 8) * 8;
      const T *at = from + (i64)row * stride + v;
      bool inside = column + v < width;
      to += row * to_stride + v;
      #pragma unroll
      for (int i = 0; i < Q; i += THREADS / (COUNT / 8)) {
        if (THREADS / (COUNT / 8) > Q && row >= Q) break;
        copy_async16(to + i * to_stride, at, inside && row + i < count);
        at += THREADS / (COUNT / 8) * stride;
      }
    } else {
      for (int i = threadIdx.x; i < Q * (COUNT / 8); i += THREADS) {
        int row = i / (COUNT / 8), v = i % (COUNT / 8) * 8;
        bool live = row < count && column + v < width;
        copy_async16(to + row * to_stride + v, from + (live ? (i64)row * stride + v : 0), live);
      }
    }
  } else {
    for (int i = threadIdx.x; i < Q * COUNT; i += THREADS) {
      int row = i / COUNT, v = i % COUNT;
      to[row * to_stride + v] = from_float<T16>(row < count && column + v < width ? to_float(from[(i64)row * stride + v]) : 0.0f);
    }
  }
}

/* b or c at n0.., zeros where there is none, to [Q][NB + 8]. */
template <typename T> __device__ __forceinline__ void load_state_columns(T16 *to, const T *from, int stride, i64 first, int count, int n0) {
  if constexpr (N % 8 == 0) {
    load_columns<NB>(to, (NB + 8), from, stride, first, count, n0, N);
  } else {
    for (int i = threadIdx.x; i < Q * NB; i += THREADS) {
      int row = i / NB, n = n0 + i % NB;
      to[row * (NB + 8) + i % NB] = from_float<T16>(row < count && n < N ? to_float(from[(first + row) * stride + n]) : 0.0f);
    }
  }
}

/* dt as it comes, at a lane's two steps of a chunk (anything behind its steps); conversions would wait for the loads. */
__device__ __forceinline__ void load_raw_steps(TDT (&raw)[2], const TDT *dt, int dt_stride, i64 first, int count, int head) {
  int s = 2 * (threadIdx.x & 31);
  #pragma unroll
  for (int j = 0; j < 2; j++) raw[j] = dt[(first + min(s + j, count - 1)) * dt_stride + head];
}

/*
 * A lane's two steps of a head: dt, the logs (base 2) of the product of the decays up to and with each step, and slopes
 * of ddt. Steps from count on have dt = 0. A warp has the chunk.
 */
struct Steps {
  float step[2], log[2], slope[2], last;

  __device__ __forceinline__ void find(const TDT (&raws)[2], int count, float bias, float log_rate, float dt_min, float dt_max) {
    int lane = threadIdx.x & 31;
    float rate = rate_of(log_rate) * -1.4426950408889634f;
    #pragma unroll
    for (int j = 0; j < 2; j++) {
      int s = 2 * lane + j;
      float raw = to_float(raws[j]) + bias, e = fast_exp(fminf(raw, 20.0f)), soft = raw > 20.0f ? raw : log1pf(e);
      step[j] = s < count ? fminf(fmaxf(soft, dt_min), dt_max) : 0.0f;
      log[j] = s < count ? fmaxf(rate * step[j], LEAST_LOG) : 0.0f;
      slope[j] = soft < dt_min || soft > dt_max ? 0.0f : raw > 20.0f ? 1.0f : e * fast_reciprocal(1.0f + e);
    }
    float total = log[0] + log[1];
    #pragma unroll
    for (int distance = 1; distance < 32; distance <<= 1) {
      float before = __shfl_up_sync(FULL_WARP, total, distance);
      if (lane >= distance) total += before;
    }
    float before = __shfl_up_sync(FULL_WARP, total, 1);
    log[0] += lane ? before : 0.0f;
    log[1] = total;
    last = __shfl_sync(FULL_WARP, total, 31);
  }
};
`;
