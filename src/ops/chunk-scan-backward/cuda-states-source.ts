/**
 * CUDA text of the chunked gradient's first kernel: the states at the chunks' starts, and their adjoints at the ends of
 * segments of chunks. Follows `CHUNKED_SOURCE`.
 */

export const STATES_SOURCE = String.raw`
/*
 * The states forward (kept: (row, chunk, heads HP, NP), the one before each chunk but the first), or their adjoints
 * backward, from y's gradient and c (kept: (row, segment, heads HP, NP), the one behind each segment but the last).
 */
template <bool BACKWARD, typename TROW, typename TCOLUMN> __device__ __forceinline__ void walk(u8 *memory, const TROW *x, int x_stride,
    const TCOLUMN *b, int b_stride, const TDT *dt, int dt_stride, const float *dt_bias, const float *a_log, T16 *kept, int first_row,
    int length, int all_heads, int segment, float dt_min, float dt_max) {
  T16 *xs = (T16 *)memory, *bs = xs + 2 * Q * XS;
  float *steps = (float *)(bs + 2 * Q * BS), *logs = steps + HEADS * Q;
  int head = blockIdx.x * HEADS, heads = min(HEADS, all_heads - head), lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  int chunks = (length + Q - 1) / Q;
  /* Chunks from first on, forward to before the last or back to the end of the first segment. */
  int first = BACKWARD ? chunks - 1 : 0, turns = BACKWARD ? chunks - segment : chunks - 1;
  i64 in = (i64)(first_row + blockIdx.y) * length;
  State s;
  auto load = [&](int turn) {
    int at = turn & 1, chunk = BACKWARD ? first - turn : turn, count = min(Q, length - chunk * Q);
    load_channels(xs + at * Q * XS, x, x_stride, in + chunk * Q, count, head, heads);
    load_state_rows(bs + at * Q * BS, b, b_stride, in + chunk * Q, count);
    copy_async_commit();
  };
  float raw[RAW][2];
  auto load_raw = [&](int turn) {
    int chunk = BACKWARD ? first - turn : turn;
    load_raw_steps(raw, dt, dt_stride, in + chunk * Q, min(Q, length - chunk * Q), head, heads);
  };
  if (turns > 0) load(0), load_raw(0);
  for (int turn = 0; turn < turns; turn++) {
    int chunk = BACKWARD ? first - turn : turn, count = min(Q, length - chunk * Q);
    T16 *mine = xs + (turn & 1) * Q * XS;
    find_steps<false>(steps, logs, nullptr, raw, count, head, heads, dt_bias, a_log, dt_min, dt_max);
    copy_async_wait<0>();
    __syncthreads();
    if (turn + 1 < turns) load(turn + 1), load_raw(turn + 1);
    /* x by its step and what is left of it at the chunk's end; dy by what is left at its step of the chunk's start. */
    #pragma unroll 2
    for (int i = threadIdx.x; i < Q * (UNITS * PW / 8); i += THREADS) {
      int row = i / (UNITS * PW / 8), column = i % (UNITS * PW / 8) * 8, h = column / HP;
      if (h >= heads) continue;
      float factor = fast_exp2(BACKWARD ? logs[h * Q + row] : logs[h * Q + Q - 1] - logs[h * Q + row]), v[8];
      if (!BACKWARD) factor *= steps[h * Q + row];
      load_row(v, mine + row * XS + column);
      #pragma unroll
      for (int j = 0; j < 8; j++) v[j] *= factor;
      store_row(mine + row * XS + column, v);
    }
    __syncthreads();
    s.update(mine, bs + (turn & 1) * Q * BS, logs, count);
    bool keep = !BACKWARD || chunk % segment == 0;
    i64 place = BACKWARD ? (i64)blockIdx.y * ((chunks + segment - 1) / segment) + chunk / segment - 1 : (i64)blockIdx.y * chunks + chunk + 1;
    T16 *to = kept + (place * all_heads + head) * HP * NP;
    #pragma unroll
    for (int m = 0; m < MT; m++) {
      #pragma unroll
      for (int j = 0; j < 2; j++) {
        int r = s.row(m) + 8 * j + g;
        bool live = keep && r < heads * HP;
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
              if (live && s.has_column(n)) *(u32 *)(to + (i64)r * NP + s.column(n) + 8 * i + 2 * t) = pack2<T16>(v[2 * j], v[2 * j + 1]);
            }
          }
        }
      }
    }
    __syncthreads();
  }
}

/*
 * Grid (groups of HEADS heads, batch rows of these launches, 1 or 2: the states, their adjoints). A segment has the given
 * number of chunks. Shared memory: x or dy [2][Q][XS], b or c [2][Q][BS], steps and logs [HEADS][Q].
 */
extern "C" __global__ void __launch_bounds__(THREADS, STATES_BLOCKS) chunk_states(const TX *x, int x_stride, const TB *b, int b_stride,
    const TC *c, int c_stride, const TDT *dt, int dt_stride, const TDY *dy, int dy_stride, const float *dt_bias, const float *a_log,
    T16 *states, T16 *adjoints, int first_row, int length, int all_heads, int segment, float dt_min, float dt_max) {
  extern __shared__ __align__(16) u8 memory[];
  zero_shared(memory, 2 * Q * (XS + BS) * 2);
  __syncthreads();
  if (blockIdx.z == 0) {
    walk<false>(memory, x, x_stride, b, b_stride, dt, dt_stride, dt_bias, a_log, states, first_row, length, all_heads, segment, dt_min, dt_max);
  } else {
    walk<true>(memory, dy, dy_stride, c, c_stride, dt, dt_stride, dt_bias, a_log, adjoints, first_row, length, all_heads, segment, dt_min, dt_max);
  }
}
`;
