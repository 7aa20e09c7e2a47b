/**
 * CUDA text of the chunked gradient's first kernel: the states and their adjoints at the borders between chunks. Follows
 * `CHUNKED_SOURCE`.
 */

export const STATES_SOURCE = String.raw`
#define CHANNELS (16 * WARPS)
/* Most heads that a block's channels are of, and of those a warp finds the steps of. */
#define HEADS ((CHANNELS + P - 2) / P + 1)
#define OWN ((HEADS + WARPS - 1) / WARPS)
#define XS (CHANNELS + 8)
#define BS (NB + 8)

/* Chunks are loaded STAGES - 1 ahead. */
struct Memory {
  T16 x[STAGES][Q * XS], b[STAGES][Q * BS];
  float factors[2][HEADS][Q], left[2][HEADS];
};

/* Two elements, each by its own factor. */
__device__ __forceinline__ u32 scaled_pair(u32 pair, float2 factors) {
  float low, high;
  unpack2(pair, low, high);
  return pack2<T16>(low * factors.x, high * factors.y);
}

/*
 * The states forward, or their adjoints backward, from y's gradient and c. A warp has 16 rows in registers. factors_kept:
 * (row, border, head, Q), what the steps behind (before, if backward) the border are multiplied by in what passes it.
 */
template <bool BACKWARD, typename TROW, typename TCOLUMN> __device__ __forceinline__ void walk(Memory &m, const TROW *x, int x_stride,
    const TCOLUMN *b, int b_stride, const TDT *dt, int dt_stride, const float *dt_bias, const float *a_log, T16 *kept,
    float *factors_kept, int first_row, int length, int all_heads, float dt_min, float dt_max) {
  int warp = warp_index(), lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, channels = all_heads * P;
  int channel = blockIdx.x * CHANNELS, n0 = (blockIdx.z >> 1) * NB, mine = channel + 16 * warp;
  int head = channel / P, heads = min((channel + CHANNELS - 1) / P + 1, all_heads) - head;
  int chunks = (length + Q - 1) / Q, borders = chunks - 1;
  int row_head[2] = {min((mine + g) / P - head, heads - 1), min((mine + g + 8) / P - head, heads - 1)};
  i64 in = (i64)(first_row + blockIdx.y) * length;
  float v[NB / 8][4] = {};
  TDT raw[OWN][2] = {};
  float bias[OWN], log_rate[OWN];
  #pragma unroll
  for (int i = 0; i < OWN; i++) {
    int h = head + min(warp + WARPS * i, heads - 1);
    bias[i] = dt_bias[h];
    log_rate[i] = a_log[h];
  }
  auto load = [&](int turn) {
    if (turn >= borders) return copy_async_commit();
    int at = turn % STAGES, chunk = BACKWARD ? borders - turn : turn, count = min(Q, length - chunk * Q);
    load_columns<CHANNELS>(m.x[at], XS, x, x_stride, in + chunk * Q, count, channel, channels);
    load_state_columns(m.b[at], b, b_stride, in + chunk * Q, count, n0);
    copy_async_commit();
  };
  auto load_raw = [&](int turn) {
    int chunk = BACKWARD ? borders - turn : turn, count = min(Q, length - chunk * Q);
    #pragma unroll
    for (int i = 0; i < OWN; i++) {
      if (warp + WARPS * i < heads) load_raw_steps(raw[i], dt, dt_stride, in + chunk * Q, count, head + warp + WARPS * i);
    }
  };
  #pragma unroll
  for (int turn = 0; turn < STAGES - 1; turn++) load(turn);
  load_raw(0);
  for (int turn = 0; turn < borders; turn++) {
    int at = turn & 1, stage = turn % STAGES, chunk = BACKWARD ? borders - turn : turn, count = min(Q, length - chunk * Q);
    i64 place = (i64)blockIdx.y * borders + (BACKWARD ? chunk - 1 : chunk);
    #pragma unroll
    for (int i = 0; i < OWN; i++) {
      int h = warp + WARPS * i;
      if (h >= heads) continue;
      Steps s;
      s.find(raw[i], count, bias[i], log_rate[i], dt_min, dt_max);
      float2 factor;
      /* What is left at a step of the chunk's start; or what a step gives to what is left at the end. */
      factor.x = BACKWARD ? fast_exp2(s.log[0]) : s.step[0] * fast_exp2(s.last - s.log[0]);
      factor.y = BACKWARD ? fast_exp2(s.log[1]) : s.step[1] * fast_exp2(s.last - s.log[1]);
      *(float2 *)(m.factors[at][h] + 2 * lane) = factor;
      if (lane == 0) m.left[at][h] = fast_exp2(s.last);
      if (n0 == 0 && (head + h) * P >= channel) *(float2 *)(factors_kept + (place * all_heads + head + h) * Q + 2 * lane) = factor;
    }
    copy_async_wait<STAGES - 2>();
    __syncthreads();
    load(turn + STAGES - 1);
    if (turn + 1 < borders) load_raw(turn + 1);
    if (mine >= channels) continue;
    float left[2] = {m.left[at][row_head[0]], m.left[at][row_head[1]]};
    #pragma unroll
    for (int n = 0; n < NB / 8; n++) {
      v[n][0] *= left[0], v[n][1] *= left[0];
      v[n][2] *= left[1], v[n][3] *= left[1];
    }
    const float *low = m.factors[at][row_head[0]] + 2 * t, *high = m.factors[at][row_head[1]] + 2 * t;
    #pragma unroll
    for (int k = 0; k < Q; k += 16) {
      if (k >= count) break;
      u32 a[4];
      ldmatrix4_transposed(a, left_columns(m.x[stage], XS, k, 16 * warp));
      a[0] = scaled_pair(a[0], *(const float2 *)(low + k));
      a[1] = scaled_pair(a[1], *(const float2 *)(high + k));
      a[2] = scaled_pair(a[2], *(const float2 *)(low + k + 8));
      a[3] = scaled_pair(a[3], *(const float2 *)(high + k + 8));
      #pragma unroll
      for (int n = 0; n < NB / 8; n += 2) {
        u32 b4[4];
        ldmatrix4_transposed(b4, right_rows(m.b[stage], BS, k, 8 * n));
        mma_pair(v[n], v[n + 1], a, b4);
      }
    }
    T16 *to = kept + ((place * (NP / 8) + n0 / 8) * channels + mine + g) * 8;
    #pragma unroll
    for (int j = 0; j < 2; j++) {
      bool live = mine + g + 8 * j < channels;
      if constexpr (NB % 32 == 0) {
        #pragma unroll
        for (int n = 0; n < NB / 8; n += 4) {
          u32 tile[4];
          #pragma unroll
          for (int i = 0; i < 4; i++) tile[i] = pack2<T16>(v[n + i][2 * j], v[n + i][2 * j + 1]);
          gather_tile(tile);
          if (live) *(uint4 *)(to + ((i64)(n + t) * channels + 8 * j) * 8) = make_uint4(tile[0], tile[1], tile[2], tile[3]);
        }
      } else {
        #pragma unroll
        for (int n = 0; n < NB / 8; n++) {
          if (live) *(u32 *)(to + ((i64)n * channels + 8 * j) * 8 + 2 * t) = pack2<T16>(v[n][2 * j], v[n][2 * j + 1]);
        }
      }
    }
  }
}

/*
 * Grid (groups of CHANNELS channels, batch rows of these launches, blocks of NB columns x 2: the states, their adjoints).
 * There are two chunks or more.
 */
extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) chunk_states(const TX *x, int x_stride, const TB *b, int b_stride,
    const TC *c, int c_stride, const TDT *dt, int dt_stride, const TDY *dy, int dy_stride, const float *dt_bias, const float *a_log,
    T16 *states, T16 *adjoints, float *x_factors, float *dy_factors, int first_row, int length, int all_heads, float dt_min, float dt_max) {
  extern __shared__ __align__(16) u8 memory[];
  Memory &m = *(Memory *)memory;
  if (blockIdx.z & 1) {
    walk<true>(m, dy, dy_stride, c, c_stride, dt, dt_stride, dt_bias, a_log, adjoints, dy_factors, first_row, length, all_heads, dt_min, dt_max);
  } else {
    walk<false>(m, x, x_stride, b, b_stride, dt, dt_stride, dt_bias, a_log, states, x_factors, first_row, length, all_heads, dt_min, dt_max);
  }
}
`;
