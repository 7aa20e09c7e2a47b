/** CUDA text of the chunked gradient's first kernel: the states at the chunks' starts. Follows `CHUNKED_SOURCE`. */

export const STATES_SOURCE = String.raw`
/*
 * Grid (groups of HEADS heads, batch rows of these launches). kept: (row, chunk, heads HP, NP), the state before each
 * chunk but the first. Shared memory: x [2][Q][XS], b [2][Q][BS], steps and logs [HEADS][Q].
 */
extern "C" __global__ void __launch_bounds__(THREADS, STATES_BLOCKS) chunk_states(const TX *x, int x_stride, const TB *b, int b_stride,
    const TDT *dt, int dt_stride, const float *dt_bias, const float *a_log, T16 *kept, int first_row, int length, int all_heads,
    float dt_min, float dt_max) {
  extern __shared__ __align__(16) u8 memory[];
  T16 *xs = (T16 *)memory, *bs = xs + 2 * Q * XS;
  float *steps = (float *)(bs + 2 * Q * BS), *logs = steps + HEADS * Q;
  int head = blockIdx.x * HEADS, heads = min(HEADS, all_heads - head), lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  int chunks = (length + Q - 1) / Q;
  i64 in = (i64)(first_row + blockIdx.y) * length;
  State s = {};
  zero_shared(memory, 2 * Q * (XS + BS) * 2);
  __syncthreads();
  auto load = [&](int chunk) {
    int at = chunk & 1, count = min(Q, length - chunk * Q);
    load_channels(xs + at * Q * XS, x, x_stride, in + chunk * Q, count, head, heads);
    load_state_rows(bs + at * Q * BS, b, b_stride, in + chunk * Q, count);
    copy_async_commit();
  };
  if (chunks > 1) load(0);
  /* The last chunk's own state is not asked for. */
  for (int chunk = 0; chunk < chunks - 1; chunk++) {
    T16 *mine = xs + (chunk & 1) * Q * XS;
    load_steps<false>(steps, logs, nullptr, dt, dt_stride, in + chunk * Q, Q, head, heads, dt_bias, a_log, dt_min, dt_max);
    copy_async_wait<0>();
    __syncthreads();
    if (chunk + 1 < chunks - 1) load(chunk + 1);
    /* x by its step and what is left of it at the chunk's end. */
    for (int i = threadIdx.x; i < Q * (UNITS * PW / 8); i += THREADS) {
      int row = i / (UNITS * PW / 8), column = i % (UNITS * PW / 8) * 8, h = column / HP;
      if (h >= heads) continue;
      float factor = steps[h * Q + row] * fast_exp2(logs[h * Q + Q - 1] - logs[h * Q + row]), v[8];
      load_row(v, mine + row * XS + column);
      #pragma unroll
      for (int j = 0; j < 8; j++) v[j] *= factor;
      store_row(mine + row * XS + column, v);
    }
    __syncthreads();
    s.update(mine, bs + (chunk & 1) * Q * BS, logs);
    T16 *to = kept + (((i64)blockIdx.y * chunks + chunk + 1) * all_heads + head) * HP * NP;
    #pragma unroll
    for (int m = 0; m < MT; m++) {
      #pragma unroll
      for (int j = 0; j < 2; j++) {
        int r = s.row(m) + 8 * j + g;
        bool live = r < heads * HP;
        if constexpr (UN % 2 == 0) {
          #pragma unroll
          for (int n = 0; n < UN; n += 2) {
            u32 pair[4];
            #pragma unroll
            for (int i = 0; i < 4; i++) {
              float *v = s.v[m][n + (i >> 1)][i & 1];
              pair[i] = pack2<T16>(v[2 * j], v[2 * j + 1]);
            }
            gather_tile(pair);
            if (live && s.column(n) + 8 * t < NP) *(uint4 *)(to + (i64)r * NP + s.column(n) + 8 * t) = make_uint4(pair[0], pair[1], pair[2], pair[3]);
          }
        } else {
          #pragma unroll
          for (int n = 0; n < UN; n++) {
            #pragma unroll
            for (int i = 0; i < 2; i++) {
              float *v = s.v[m][n][i];
              if (live && s.column(n) < NP) *(u32 *)(to + (i64)r * NP + s.column(n) + 8 * i + 2 * t) = pack2<T16>(v[2 * j], v[2 * j + 1]);
            }
          }
        }
      }
    }
    __syncthreads();
  }
  copy_async_wait<0>();
}
`;
