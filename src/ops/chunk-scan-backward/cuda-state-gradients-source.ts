/**
 * CUDA text of the chunked gradient's last kernels: db and dc from the states, their adjoints and the heads' weights, and
 * the parameters' gradients. Follows `CHUNKED_SOURCE`.
 */

export const STATE_GRADIENTS_SOURCE = String.raw`
/* Channels of a stage (a lane each), stages under way, and most heads of a stage's channels. */
#define CHANNELS 32
#define STAGES 4
#define HEADS ((CHANNELS + P - 2) / P + 1)
#define XS (CHANNELS + 8)
#define BS (NB + 8)
#define WS (Q + 8)

struct Stage {
  T16 rows[Q * XS], state[NB * CHANNELS];
  float factors[HEADS][Q];
};
struct Memory {
  union {
    Stage stages[STAGES];
    struct { T16 near[Q * BS], weights[Q * WS]; };
  };
};

/* Sums (a strip, NB) to rows row and row + 8 before count. */
template <typename T> __device__ __forceinline__ void store_sums(T *to, int stride, const float (&sum)[NB / 8][4], int row, int count) {
  int t = threadIdx.x & 3;
  #pragma unroll
  for (int j = 0; j < 2; j++) {
    bool live = row + 8 * j < count;
    T *at = to + (i64)(row + 8 * j) * stride;
    if constexpr (Same<T, T16>::value && NB % 32 == 0) {
      #pragma unroll
      for (int n = 0; n < NB / 8; n += 4) {
        u32 tile[4];
        #pragma unroll
        for (int i = 0; i < 4; i++) tile[i] = pack2<T16>(sum[n + i][2 * j], sum[n + i][2 * j + 1]);
        gather_tile(tile);
        if (live) *(uint4 *)(at + 8 * (n + t)) = make_uint4(tile[0], tile[1], tile[2], tile[3]);
      }
    } else {
      #pragma unroll
      for (int n = 0; n < NB / 8; n++) if (live) store_pair(at + 8 * n + 2 * t, sum[n][2 * j], sum[n][2 * j + 1]);
    }
  }
}

/*
 * Grid (blocks of NB columns x 2: db, dc; chunks; batch rows of these launches), a warp has a strip. dc[i] is the sum over
 * j of W[j][i] b[j] and over channels of exp(a[i]) dy[i] S0, db[j] that over i of W[j][i] c[i] and dt[j] exp(a[Q] - a[j]) x[j] E.
 * weights: (row, chunk, groups, 10 blocks of 16 x 16 on and above the diagonal, as lanes hold them).
 */
extern "C" __global__ void __launch_bounds__(THREADS) state_gradients(const TX *x, int x_stride, const TB *b, int b_stride, const TC *c,
    int c_stride, const TDY *dy, int dy_stride, TDB *db, int db_stride, TDC *dc, int dc_stride, const T16 *states, const T16 *adjoints,
    const float *x_factors, const float *dy_factors, const float *weights, int first_row, int length, int all_heads, int groups) {
  extern __shared__ __align__(16) u8 memory[];
  Memory &m = *(Memory *)memory;
  int strip = warp_index(), lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, channels = all_heads * P;
  bool is_c = blockIdx.x & 1;
  int n0 = (blockIdx.x >> 1) * NB, chunk = blockIdx.y, chunks = gridDim.y, borders = chunks - 1, count = min(Q, length - chunk * Q);
  i64 first = (i64)(first_row + blockIdx.z) * length + chunk * Q, border = (i64)blockIdx.z * borders + (is_c ? chunk - 1 : chunk);
  int turns = (is_c ? chunk > 0 : chunk < borders) ? (channels + CHANNELS - 1) / CHANNELS : 0;
  const T16 *kept = (is_c ? states : adjoints) + (border * (NP / 8) + n0 / 8) * channels * 8;
  const float *factors = (is_c ? dy_factors : x_factors) + border * all_heads * Q;
  auto load = [&](int turn) {
    Stage &s = m.stages[turn % STAGES];
    int channel = turn * CHANNELS, head = channel / P;
    if (is_c) load_columns<CHANNELS>(s.rows, XS, dy, dy_stride, first, count, channel, channels);
    else load_columns<CHANNELS>(s.rows, XS, x, x_stride, first, count, channel, channels);
    const T16 *from = kept + (i64)(strip * channels + channel + lane) * 8;
    #pragma unroll
    for (int n = 0; n < NB / 8; n += WARPS) {
      if (NB / 8 % WARPS != 0 && n + strip >= NB / 8) break;
      copy_async16(s.state + ((n + strip) * CHANNELS + lane) * 8, from, channel + lane < channels);
      from += WARPS * channels * 8;
    }
    for (int i = threadIdx.x; i < HEADS * (Q / 4); i += THREADS) {
      int h = i / (Q / 4);
      bool live = head + h < all_heads;
      copy_async16(s.factors[h] + i % (Q / 4) * 4, factors + (live ? (i64)(head + h) * Q + i % (Q / 4) * 4 : 0), live);
    }
  };
  float sum[NB / 8][4] = {};
  #pragma unroll
  for (int turn = 0; turn < STAGES - 1; turn++) {
    if (turn < turns) load(turn);
    copy_async_commit();
  }
  for (int turn = 0; turn < turns; turn++) {
    copy_async_wait<STAGES - 2>();
    __syncthreads();
    if (turn + STAGES - 1 < turns) load(turn + STAGES - 1);
    copy_async_commit();
    if (16 * strip >= count) continue;
    Stage &s = m.stages[turn % STAGES];
    int head = turn * CHANNELS / P;
    #pragma unroll
    for (int k = 0; k < CHANNELS; k += 16) {
      u32 a[4];
      ldmatrix4(a, left_rows(s.rows, XS, 16 * strip, k));
      #pragma unroll
      for (int i = 0; i < 2; i++) {
        int channel = turn * CHANNELS + k + 8 * i + 2 * t, h = channel / P - head, h2 = P % 2 ? (channel + 1) / P - head : h;
        #pragma unroll
        for (int j = 0; j < 2; j++) {
          int row = 16 * strip + g + 8 * j;
          float low, high, factor = s.factors[h][row];
          unpack2(a[2 * i + j], low, high);
          a[2 * i + j] = pack2<T16>(low * factor, high * (P % 2 ? s.factors[h2][row] : factor));
        }
      }
      #pragma unroll
      for (int n = 0; n < NB / 8; n += 2) {
        u32 b4[4];
        ldmatrix4_transposed(b4, s.state + ((n + (lane >> 4)) * CHANNELS + k + (lane & 15)) * 8);
        mma_pair(sum[n], sum[n + 1], a, b4);
      }
    }
  }
  copy_async_wait<0>();
  __syncthreads();

  if (is_c) load_state_columns(m.near, b, b_stride, first, count, n0);
  else load_state_columns(m.near, c, c_stride, first, count, n0);
  copy_async_commit();
  weights += ((i64)blockIdx.z * chunks + chunk) * groups * 2560;
  #pragma unroll
  for (int i = threadIdx.x; i < 640; i += THREADS) {
    int block = i / 64, j = block < 4 ? 0 : block < 7 ? 1 : block < 9 ? 2 : 3, right = block - j * (9 - j) / 2 + j, l = i & 31;
    float4 w = *(const float4 *)(weights + i * 4);
    for (int group = 1; group < groups; group++) {
      float4 more = *(const float4 *)(weights + group * 2560 + i * 4);
      w.x += more.x, w.y += more.y, w.z += more.z, w.w += more.w;
    }
    T16 *to = m.weights + (16 * j + (l >> 2)) * WS + 16 * right + (i >> 5 & 1) * 8 + 2 * (l & 3);
    *(u32 *)to = pack2<T16>(w.x, w.y);
    *(u32 *)(to + 8 * WS) = pack2<T16>(w.z, w.w);
  }
  copy_async_wait<0>();
  __syncthreads();
  if (16 * strip >= count) return;
  #pragma unroll
  for (int k = 0; k < 4; k++) {
    if (16 * k >= count || (is_c ? k > strip : k < strip)) continue;
    u32 a[4];
    if (is_c) ldmatrix4_transposed(a, left_columns(m.weights, WS, 16 * k, 16 * strip));
    else ldmatrix4(a, left_rows(m.weights, WS, 16 * strip, 16 * k));
    #pragma unroll
    for (int n = 0; n < NB / 8; n += 2) {
      u32 b4[4];
      ldmatrix4_transposed(b4, right_rows(m.near, BS, 16 * k, 8 * n));
      mma_pair(sum[n], sum[n + 1], a, b4);
    }
  }
  int row = 16 * strip + g;
  if (is_c) store_sums(dc + first * dc_stride + n0, dc_stride, sum, row, count);
  else store_sums(db + first * db_stride + n0, db_stride, sum, row, count);
}

/*
 * Adds parts (items, heads, 2 + (D_PER_CHANNEL ? P : 1)) of dt_bias, a_log and d to the gradients; null where there is
 * none. Grid (heads).
 */
#define NUMBERS (2 + (D_PER_CHANNEL ? P : 1))
extern "C" __global__ void __launch_bounds__(THREADS) add_head_sums(const float *parts, float *dt_bias, float *a_log, float *d, int items,
    int heads) {
  __shared__ float cells[32];
  int head = blockIdx.x;
  for (int k = 0; k < NUMBERS; k++) {
    float *to = k == 0 ? dt_bias : k == 1 ? a_log : d, sum = 0.0f;
    #pragma unroll 8
    for (int i = threadIdx.x; i < items; i += THREADS) sum += parts[((i64)i * heads + head) * NUMBERS + k];
    sum = block_sum(sum, cells);
    if (threadIdx.x == 0 && to) to[k < 2 ? head : head * (NUMBERS - 2) + k - 2] += sum;
  }
}
`;
