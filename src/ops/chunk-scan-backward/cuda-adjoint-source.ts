/**
 * CUDA text of the chunked gradient's second kernel: chunks from the last to the first, with the adjoint of the state
 * carried in registers. Follows `ADJOINT_UNIT_SOURCE`.
 *
 * Of a chunk with S0 the state before it, E the adjoint of the state behind it, a the sums of dt A up to and with a step,
 * L[j][i] = exp(a[i] - a[j]) for i >= j, K[j][i] = (b[j].c[i]) and O[j][i] = x[j].dy[i] of a head:
 *   u[j]  = sum over i of L K dy[i] + exp(a[Q] - a[j]) E b[j];       dx[j] = d dy[j] + dt[j] u[j]
 *   W     = sum over heads of dt[j] L O;    dc[i] = sum over j of W b[j] + sum over heads of exp(a[i]) S0' dy[i]
 *                                           db[j] = sum over i of W c[i] + sum over heads of dt[j] exp(a[Q] - a[j]) E' x[j]
 *   the gradient of dt[j] is x[j].u[j] + A D[j], and with w[j][i] = dt[j] L K O strictly above the diagonal
 *   D[t]  = sum over i >= t of (exp(a[i]) dy[i] S0 c[i] + sum over j of w[j][i] - sum over j of w[i][j])
 *         + sum over j < t of dt[j] exp(a[Q] - a[j]) x[j] E b[j] + exp(a[Q]) <E, S0>;
 *   E of the chunk before is exp(a[Q]) E + sum over i of exp(a[i]) dy[i] (outer) c[i].
 * Only exponentials of numbers up to 0 are taken, and all terms of D are small where the decay is strong.
 */

export const ADJOINT_SOURCE = String.raw`
/* K = b c' on and above the diagonal. */
__device__ __forceinline__ void products(Memory &m, int strips) {
  int lane = threadIdx.x & 31;
  for (int i = warp_index(); i < 10; i += THREADS / 32) {
    int j = i < 4 ? 0 : i < 7 ? 1 : i < 9 ? 2 : 3, column = i - j * (9 - j) / 2 + j;
    if (column >= strips) continue;
    float k[2][4] = {};
    #pragma unroll 4
    for (int n = 0; n < NP; n += 16) {
      u32 a[4], b[4];
      ldmatrix4(a, left_rows(m.b, BS, 16 * j, n));
      ldmatrix4(b, right_columns(m.c, BS, 16 * column, n));
      mma_pair(k[0], k[1], a, b);
    }
    float4 *to = (float4 *)(m.k + i * 256 + lane * 4);
    to[0] = make_float4(k[0][0], k[0][1], k[0][2], k[0][3]);
    to[32] = make_float4(k[1][0], k[1][1], k[1][2], k[1][3]);
  }
}

/* What the heads give to db (warps 0 to 3) and dc of the chunk; the weights are in m.k, x and dy carry their factors. */
__device__ __forceinline__ void state_gradients(Memory &m, T16 *db, T16 *dc, int count, bool has_state,
    bool has_adjoint) {
  int warp = warp_index(), lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  bool is_c = warp >= 4;
  int strips = (count + 15) >> 4, carried = (is_c ? has_state : has_adjoint) ? R : 0;
  const T16 *weights = (const T16 *)m.k, *near = is_c ? m.b : m.c, *rows = is_c ? m.dy : m.x, *state = is_c ? m.state : m.adjoint;
  T16 *out = is_c ? dc : db;
  for (int n0 = (warp & 3) * DN * 16; n0 < NP; n0 += 4 * DN * 16) {
    float sum[4][DN][2][4] = {};
    #pragma unroll
    for (int k = 0; k < 4; k++) {
      if (k >= strips) break;
      u32 b[DN][4];
      #pragma unroll
      for (int n = 0; n < DN; n++) if ((NP % (16 * DN) == 0 || n0 + 16 * n < NP)) ldmatrix4_transposed(b[n], right_rows(near, BS, 16 * k, n0 + 16 * n));
      #pragma unroll
      for (int s = 0; s < 4; s++) {
        if ((is_c ? k > s : k < s) || s >= strips) continue;
        u32 a[4];
        if (is_c) ldmatrix4_transposed(a, left_columns(weights, WS, 16 * k, 16 * s));
        else ldmatrix4(a, left_rows(weights, WS, 16 * s, 16 * k));
        #pragma unroll
        for (int n = 0; n < DN; n++) if ((NP % (16 * DN) == 0 || n0 + 16 * n < NP)) mma_pair(sum[s][n][0], sum[s][n][1], a, b[n]);
      }
    }
    #pragma unroll 2
    for (int k = 0; k < carried; k += 16) {
      u32 b[DN][4];
      #pragma unroll
      for (int n = 0; n < DN; n++) if ((NP % (16 * DN) == 0 || n0 + 16 * n < NP)) ldmatrix4_transposed(b[n], right_rows(state, BS, k, n0 + 16 * n));
      #pragma unroll
      for (int s = 0; s < 4; s++) {
        if (s >= strips) break;
        u32 a[4];
        ldmatrix4(a, left_rows(rows, XS, 16 * s, k));
        #pragma unroll
        for (int n = 0; n < DN; n++) if ((NP % (16 * DN) == 0 || n0 + 16 * n < NP)) mma_pair(sum[s][n][0], sum[s][n][1], a, b[n]);
      }
    }
    #pragma unroll
    for (int s = 0; s < 4; s++) {
      #pragma unroll
      for (int j = 0; j < 2; j++) {
        int row = 16 * s + g + 8 * j;
        if constexpr (DN == 2) {
          u32 pair[4];
          #pragma unroll
          for (int i = 0; i < 4; i++) pair[i] = pack2<T16>(sum[s][i >> 1][i & 1][2 * j], sum[s][i >> 1][i & 1][2 * j + 1]);
          gather_tile(pair);
          if (row < count && n0 + 8 * t < NP) *(uint4 *)(out + (i64)row * NP + n0 + 8 * t) = make_uint4(pair[0], pair[1], pair[2], pair[3]);
        } else if (row < count) {
          #pragma unroll
          for (int i = 0; i < 2; i++) {
            *(u32 *)(out + (i64)row * NP + n0 + 8 * i + 2 * t) = pack2<T16>(sum[s][0][i][2 * j], sum[s][0][i][2 * j + 1]);
          }
        }
      }
    }
  }
}

/* ddt of the chunk, and the heads' sums of it and of A dt D. A warp has a head, a lane two steps. */
__device__ __forceinline__ void finish_steps(Memory &m, TDDT *ddt, int ddt_stride, const float *a_log, int count, int head, int heads) {
  int lane = threadIdx.x & 31;
  for (int h = warp_index(); h < heads; h += THREADS / 32) {
    float rate = rate_of(a_log, head + h), inner = 0.0f, direct[2] = {}, along[2] = {}, ahead[2] = {};
    for (int i = lane; i < HP / 8 * WN; i += 32) inner += m.inner[h * (HP / 8) + i / WN][i % WN];
    inner = warp_sum(inner) * fast_exp2(m.logs[h * Q + Q - 1]);
    #pragma unroll
    for (int q = 0; q < PARTS; q++) {
      #pragma unroll
      for (int j = 0; j < 2; j++) {
        int at = (h * PARTS + q) * Q + 2 * lane + j;
        direct[j] += m.direct[at];
        along[j] += m.along[at] + m.across[0][at] + m.across[1][at];
        ahead[j] += m.ahead[at];
      }
    }
    bool cut[2];
    #pragma unroll
    for (int j = 0; j < 2; j++) {
      cut[j] = rate * m.steps[h * Q + 2 * lane + j] > CUT;
      if (cut[j]) along[j] = 0.0f;
    }
    float after = cut[0] ? 0.0f : along[0] + along[1], before = ahead[0] + ahead[1];
    bool ends = cut[0] || cut[1];
    #pragma unroll
    for (int distance = 1; distance < 32; distance <<= 1) {
      float a = __shfl_down_sync(FULL_WARP, after, distance), b = __shfl_up_sync(FULL_WARP, before, distance);
      bool end = __shfl_down_sync(FULL_WARP, (int)ends, distance);
      if (lane + distance < 32 && !ends) after += a, ends = end;
      if (lane >= distance) before += b;
    }
    float later = __shfl_down_sync(FULL_WARP, after, 1), earlier = __shfl_up_sync(FULL_WARP, before, 1), decayed[2];
    if (lane == 0) earlier = 0.0f;
    decayed[1] = lane < 31 && !cut[1] ? along[1] + later : along[1];
    decayed[0] = cut[0] ? 0.0f : along[0] + decayed[1];
    decayed[0] += inner + earlier;
    decayed[1] += inner + earlier + ahead[0];
    float change_sum = 0.0f, rate_sum = 0.0f;
    #pragma unroll
    for (int j = 0; j < 2; j++) {
      int s = 2 * lane + j;
      float step = m.steps[h * Q + s];
      if (cut[j]) decayed[j] = 0.0f;
      if (s >= count) continue;
      float change = (direct[j] - rate * decayed[j]) * m.slopes[h * Q + s];
      ddt[(i64)s * ddt_stride + head + h] = from_float<TDDT>(change);
      change_sum += change;
      rate_sum -= rate * step * decayed[j];
    }
    change_sum = warp_sum(change_sum);
    rate_sum = warp_sum(rate_sum);
    if (lane == 0) m.sums[h][0] += change_sum, m.sums[h][1] += rate_sum;
  }
}

/*
 * Grid (groups of HEADS heads, batch rows of these launches, segments of the given number of chunks). states, adjoints: as
 * chunk_states leaves them; db_parts, dc_parts: (group, steps of the rows, NP); parameter_parts: (row of all, segment, head,
 * PARTS, 2 + PW): dDtBias, dALog (of the first unit), and dD by channel (without D_PER_CHANNEL the sum of 8 at the first).
 */
extern "C" __global__ void __launch_bounds__(THREADS, 1) chunk_adjoint(const TX *x, int x_stride, const TB *b, int b_stride,
    const TC *c, int c_stride, const TDT *dt, int dt_stride, const TDY *dy, int dy_stride, TDX *dx, int dx_stride, TDDT *ddt,
    int ddt_stride, const float *dt_bias, const float *a_log, const float *d, const T16 *states, const T16 *adjoints,
    T16 *db_parts, T16 *dc_parts, float *parameter_parts, int first_row, int length, int all_heads, int segment, float dt_min, float dt_max) {
  extern __shared__ __align__(16) u8 memory[];
  Memory &m = *(Memory *)memory;
  int tid = threadIdx.x, warp = warp_index(), lane = tid & 31, g = lane >> 2, t = lane & 3, parity = warp & 1, turn = warp >> 1;
  int strip[2] = {parity, 3 - parity};
  int head = blockIdx.x * HEADS, heads = min(HEADS, all_heads - head), chunks = (length + Q - 1) / Q;
  int first_chunk = blockIdx.z * segment, end_chunk = min(first_chunk + segment, chunks);
  i64 in = (i64)(first_row + blockIdx.y) * length;
  State adjoint;
  float skip[D_PER_CHANNEL ? 8 : 1] = {};
  int vector = tid % VECTORS, vector_row = tid / VECTORS, vector_head = vector * 8 / HP;
  zero_shared(memory, sizeof(Memory));
  __syncthreads();
  /* x and the state before a chunk; their memory is free sooner than the others'. */
  auto load_first = [&](int chunk) {
    load_channels(m.x, x, x_stride, in + chunk * Q, min(Q, length - chunk * Q), head, heads);
    const T16 *state = states + (((i64)blockIdx.y * chunks + chunk) * all_heads + head) * HP * NP;
    if (chunk > 0) {
      for (int i = tid; i < heads * HP * (NP / 8); i += THREADS) {
        copy_async16(m.state + i / (NP / 8) * BS + i % (NP / 8) * 8, state + (i64)i * 8, true);
      }
    }
    copy_async_commit();
  };
  load_first(end_chunk - 1);
  float raw[RAW][2];
  load_raw_steps(raw, dt, dt_stride, in + (end_chunk - 1) * Q, min(Q, length - (end_chunk - 1) * Q), head, heads);
  if (end_chunk < chunks) {
    const T16 *from = adjoints + (((i64)blockIdx.y * gridDim.z + blockIdx.z) * all_heads + head) * HP * NP;
    for (int i = tid; i < heads * HP * (NP / 8); i += THREADS) {
      *(uint4 *)(m.adjoint + i / (NP / 8) * BS + i % (NP / 8) * 8) = *(const uint4 *)(from + (i64)i * 8);
    }
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < MT; i++) {
      if (!adjoint.has_row(i)) continue;
      #pragma unroll
      for (int n = 0; n < 2 * UN; n++) {
        if (!adjoint.has_column(n >> 1)) continue;
        float *v = adjoint.v[i][n >> 1][n & 1];
        const T16 *kept = m.adjoint + (adjoint.row(i) + g) * BS + adjoint.column(n >> 1) + 8 * (n & 1) + 2 * t;
        unpack2(*(const u32 *)kept, v[0], v[1]);
        unpack2(*(const u32 *)(kept + 8 * BS), v[2], v[3]);
      }
    }
  }
  for (int chunk = end_chunk - 1; chunk >= first_chunk; chunk--) {
    int count = min(Q, length - chunk * Q), strips = (count + 15) >> 4;
    i64 first = in + chunk * Q;
    bool has_state = chunk > 0, has_adjoint = chunk < chunks - 1;
    __syncthreads();
    load_channels(m.dy, dy, dy_stride, first, count, head, heads);
    load_state_rows(m.b, b, b_stride, first, count);
    load_state_rows(m.c, c, c_stride, first, count);
    copy_async_commit();
    find_steps<true>(m.steps, m.logs, m.slopes, raw, count, head, heads, dt_bias, a_log, dt_min, dt_max);
    for (int i = tid; i < UNITS * Q; i += THREADS) {
      m.across[0][i] = m.across[1][i] = 0.0f;
      if (count < Q) m.direct[i] = m.along[i] = m.ahead[i] = 0.0f;
    }
    copy_async_wait<0>();
    __syncthreads();
    if (chunk > first_chunk) {
      /* The next chunk's operands on their way to the second-level cache. */
      i64 next = first - Q;
      int step = tid >> 2, line = tid & 3;
      prefetch_row<HEADS * P * sizeof(TX)>(x + (next + step) * x_stride + (i64)head * P, heads * P * sizeof(TX), line);
      prefetch_row<HEADS * P * sizeof(TDY)>(dy + (next + step) * dy_stride + (i64)head * P, heads * P * sizeof(TDY), line);
      prefetch_row<N * sizeof(TB)>(b + (next + step) * b_stride, N * sizeof(TB), line);
      prefetch_row<N * sizeof(TC)>(c + (next + step) * c_stride, N * sizeof(TC), line);
      if (line == 0) prefetch_l2(dt + (next + step) * dt_stride + head);
      if (chunk > 1) {
        const u8 *state = (const u8 *)(states + (((i64)blockIdx.y * chunks + chunk - 1) * all_heads + head) * HP * NP);
        for (int at = tid * 128; at < heads * HP * NP * 2; at += THREADS * 128) prefetch_l2(state + at);
      }
    }
    products(m, strips);
    __syncthreads();

    Weights w = {};
    for (int unit = turn; unit < heads * PARTS; unit += 4) {
      unit_step(m, w, unit, parity, strip, d, dx + first * dx_stride, dx_stride, count, head, has_state,
        has_adjoint);
    }
    __syncthreads();

    /* The weights of turns 2 and 3 to those of 0 and 1, then both together. */
    #pragma unroll
    for (int i = 0; i < 6; i++) {
      int at;
      if (!Weights::place(i, strip, strips, at) || turn < 2) continue;
      float *to = (turn == 2 ? m.k : m.w) + at;
      *(float4 *)to = make_float4(w.v[i][0], w.v[i][1], w.v[i][2], w.v[i][3]);
      *(float4 *)(to + 128) = make_float4(w.v[i][4], w.v[i][5], w.v[i][6], w.v[i][7]);
    }
    /* From here on x carries dt exp(a[Q] - a), dy carries exp(a). */
    if (vector_head < heads) {
      for (int row = vector_row; row < Q; row += THREADS / VECTORS) {
        if (vector_row >= THREADS / VECTORS) break;
        float log = m.logs[vector_head * Q + row], last = m.logs[vector_head * Q + Q - 1];
        float x_factor = m.steps[vector_head * Q + row] * fast_exp2(last - log), dy_factor = fast_exp2(log), v[8], o[8];
        T16 *to_x = m.x + row * XS + vector * 8, *to_dy = m.dy + row * XS + vector * 8;
        load_row(v, to_x);
        load_row(o, to_dy);
        #pragma unroll
        for (int i = 0; i < 8; i++) {
          skip[D_PER_CHANNEL ? i : 0] += v[i] * o[i];
          v[i] *= x_factor;
          o[i] *= dy_factor;
        }
        store_row(to_x, v);
        store_row(to_dy, o);
      }
    }
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < 6; i++) {
      int at;
      if (!Weights::place(i, strip, strips, at) || turn >= 2) continue;
      float *from = (turn ? m.w : m.k) + at;
      float low[4], high[4];
      load_row(low, from);
      load_row(high, from + 128);
      #pragma unroll
      for (int e = 0; e < 4; e++) w.v[i][e] += low[e], w.v[i][4 + e] += high[e];
      if (turn) {
        *(float4 *)from = make_float4(w.v[i][0], w.v[i][1], w.v[i][2], w.v[i][3]);
        *(float4 *)(from + 128) = make_float4(w.v[i][4], w.v[i][5], w.v[i][6], w.v[i][7]);
      }
    }
    #pragma unroll
    for (int i = 0; i < MT; i++) {
      if (!adjoint.has_row(i)) continue;
      #pragma unroll
      for (int j = 0; j < 2; j++) {
        float sum = 0.0f;
        #pragma unroll
        for (int n = 0; n < 2 * UN; n++) {
          if (!adjoint.has_column(n >> 1)) continue;
          float low, high, *v = adjoint.v[i][n >> 1][n & 1];
          if (!has_state || !has_adjoint) continue;
          unpack2(*(const u32 *)(m.state + (adjoint.row(i) + 8 * j + g) * BS + adjoint.column(n >> 1) + 8 * (n & 1) + 2 * t), low, high);
          sum += low * v[2 * j] + high * v[2 * j + 1];
        }
        sum = warp_sum(sum);
        if (lane == 0) m.inner[adjoint.row(i) / 8 + j][warp % WN] = sum;
      }
    }
    __syncthreads();
    if (turn == 0) {
      T16 *weights = (T16 *)m.k;
      #pragma unroll
      for (int i = 0; i < 6; i++) {
        int at, j = i < 4 ? 0 : 1, right = i < 4 ? i : i - 4;
        if (!Weights::place(i, strip, strips, at)) continue;
        #pragma unroll
        for (int half = 0; half < 2; half++) {
          float4 more = *(const float4 *)(m.w + at + 128 * half);
          float *v = w.v[i] + 4 * half;
          T16 *to = weights + (16 * strip[j] + g) * WS + 16 * (strip[j] + right) + 8 * half + 2 * t;
          *(u32 *)to = pack2<T16>(v[0] + more.x, v[1] + more.y);
          *(u32 *)(to + 8 * WS) = pack2<T16>(v[2] + more.z, v[3] + more.w);
        }
      }
    }
    __syncthreads();

    finish_steps(m, ddt + first * ddt_stride, ddt_stride, a_log, count, head, heads);
    i64 part = (((i64)blockIdx.x * gridDim.y + blockIdx.y) * length + chunk * Q) * NP;
    state_gradients(m, db_parts + part, dc_parts + part, count, has_state, has_adjoint);
    if (chunk == first_chunk) break;
    __syncthreads();
    load_first(chunk - 1);
    load_raw_steps(raw, dt, dt_stride, first - Q, Q, head, heads);
    adjoint.update(m.dy, m.c, m.logs, count);
    #pragma unroll
    for (int i = 0; i < MT; i++) {
      if (!adjoint.has_row(i)) continue;
      #pragma unroll
      for (int n = 0; n < 2 * UN; n++) {
        if (!adjoint.has_column(n >> 1)) continue;
        float *v = adjoint.v[i][n >> 1][n & 1];
        T16 *to = m.adjoint + (adjoint.row(i) + g) * BS + adjoint.column(n >> 1) + 8 * (n & 1) + 2 * t;
        *(u32 *)to = pack2<T16>(v[0], v[1]);
        *(u32 *)(to + 8 * BS) = pack2<T16>(v[2], v[3]);
      }
    }
  }
  __syncthreads();
  /* Sums of dy x over the threads of a channel, in the weights' memory. */
  if (vector_row < THREADS / VECTORS) {
    #pragma unroll
    for (int i = 0; i < 8; i++) m.k[vector_row * R + vector * 8 + i] = D_PER_CHANNEL ? skip[D_PER_CHANNEL ? i : 0] : i ? 0.0f : skip[0];
  }
  __syncthreads();
  float *parameters = parameter_parts + (((i64)(first_row + blockIdx.y) * gridDim.z + blockIdx.z) * all_heads + head) * PARTS * (2 + PW);
  for (int i = tid; i < heads * PARTS * (2 + PW); i += THREADS) {
    int unit = i / (2 + PW), k = i % (2 + PW);
    float sum = 0.0f;
    if (k >= 2) for (int r = 0; r < THREADS / VECTORS; r++) sum += m.k[r * R + unit * PW + k - 2];
    else if (unit % PARTS == 0) sum = m.sums[unit / PARTS][k];
    parameters[i] = sum;
  }
  if (head + heads < all_heads) return;
  int channels = all_heads * P, pads = -channels & 15, steps = min(end_chunk * Q, length) - first_chunk * Q;
  in += first_chunk * Q;
  for (int i = tid; i < steps * pads; i += THREADS) dx[(in + i / pads) * dx_stride + channels + i % pads] = from_float<TDX>(0.0f);
  pads = -all_heads & 15;
  for (int i = tid; i < steps * pads; i += THREADS) ddt[(in + i / pads) * ddt_stride + all_heads + i % pads] = from_float<TDDT>(0.0f);
}
`;
