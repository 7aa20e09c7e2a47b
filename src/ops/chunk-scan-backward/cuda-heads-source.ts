/**
 * CUDA text of the chunked gradient's second kernel: dx, ddt and what a chunk's heads give to the weights of db and dc. All
 * chunks are independent of each other, and within one each warp has heads of its own. Follows `UNIT_SOURCE`.
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

export const HEADS_SOURCE = String.raw`
/* Steps with A dt beyond this leave nothing: D is 0 there, and sums over steps begin anew. */
#define CUT 27.0f
#define NUMBERS (2 + (D_PER_CHANNEL ? P : 1))

/* K = b c' on and above the diagonal. */
__device__ __forceinline__ void products(Memory &m, int strips) {
  int lane = threadIdx.x & 31;
  for (int i = warp_index(); i < 10; i += WARPS) {
    int j = i < 4 ? 0 : i < 7 ? 1 : i < 9 ? 2 : 3, column = i - first_block(j) + j;
    if (column >= strips) continue;
    float k[2][4] = {};
    #pragma unroll 8
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

/*
 * ddt of the chunk for a head, from the sums in shared memory and inner = exp(a[Q]) <E, S0>; sums it and A dt D, the same
 * on all lanes. A lane has two steps.
 */
__device__ __forceinline__ void finish_steps(const Mine &mine, const Steps &s, float rate, float inner, TDDT *ddt, int ddt_stride, int count,
    float &change_sum, float &rate_sum) {
  int lane = threadIdx.x & 31;
  float2 direct = *(const float2 *)(mine.direct + 2 * lane), a = *(const float2 *)(mine.along + 2 * lane);
  float2 ahead = *(const float2 *)(mine.ahead + 2 * lane), across = *(const float2 *)(mine.across + 2 * lane);
  float along[2] = {a.x + across.x, a.y + across.y};
  bool cut[2];
  #pragma unroll
  for (int j = 0; j < 2; j++) {
    cut[j] = rate * s.step[j] > CUT;
    if (cut[j]) along[j] = 0.0f;
  }
  float after = cut[0] ? 0.0f : along[0] + along[1], before = ahead.x + ahead.y;
  bool ends = cut[0] || cut[1];
  #pragma unroll
  for (int distance = 1; distance < 32; distance <<= 1) {
    float next = __shfl_down_sync(FULL_WARP, after, distance), past = __shfl_up_sync(FULL_WARP, before, distance);
    bool end = __shfl_down_sync(FULL_WARP, (int)ends, distance);
    if (lane + distance < 32 && !ends) after += next, ends = end;
    if (lane >= distance) before += past;
  }
  float later = __shfl_down_sync(FULL_WARP, after, 1), earlier = __shfl_up_sync(FULL_WARP, before, 1), decayed[2];
  if (lane == 0) earlier = 0.0f;
  decayed[1] = lane < 31 && !cut[1] ? along[1] + later : along[1];
  decayed[0] = cut[0] ? 0.0f : along[0] + decayed[1];
  decayed[0] += inner + earlier;
  decayed[1] += inner + earlier + ahead.x;
  change_sum = rate_sum = 0.0f;
  #pragma unroll
  for (int j = 0; j < 2; j++) {
    if (cut[j]) decayed[j] = 0.0f;
    if (2 * lane + j >= count) continue;
    float change = ((j ? direct.y : direct.x) - rate * decayed[j]) * s.slope[j];
    ddt[(i64)(2 * lane + j) * ddt_stride] = from_float<TDDT>(change);
    change_sum += change;
    rate_sum -= rate * s.step[j] * decayed[j];
  }
  change_sum = warp_sum(change_sum);
  rate_sum = warp_sum(rate_sum);
}

/*
 * Grid (groups of the given number of heads, batch rows of these launches, chunks). states, adjoints: as chunk_states
 * leaves them; weights: (row, chunk, group, 10 blocks of W as lanes hold them); parameter_parts: (row of all, chunk, head,
 * NUMBERS): of dt_bias, of a_log, and of d.
 */
extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) chunk_heads(const TX *x, int x_stride, const TB *b, int b_stride,
    const TC *c, int c_stride, const TDT *dt, int dt_stride, const TDY *dy, int dy_stride, TDX *dx, int dx_stride, TDDT *ddt,
    int ddt_stride, const float *dt_bias, const float *a_log, const float *d, const T16 *states, const T16 *adjoints,
    float *weights, float *parameter_parts, int first_row, int length, int all_heads, int group, float dt_min, float dt_max) {
  extern __shared__ __align__(16) u8 memory[];
  Memory &m = *(Memory *)memory;
  int warp = warp_index(), lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, channels = all_heads * P;
  Mine &mine = m.mine[warp];
  int chunk = blockIdx.z, chunks = gridDim.z, count = min(Q, length - chunk * Q), strips = (count + 15) >> 4;
  int end = min((int)(blockIdx.x + 1) * group, all_heads);
  bool has_state = chunk > 0, has_adjoint = chunk < chunks - 1;
  i64 first = (i64)(first_row + blockIdx.y) * length + chunk * Q, border = (i64)blockIdx.y * (chunks - 1) + chunk;
  states += (border - 1) * (NP / 8) * channels * 8;
  adjoints += border * (NP / 8) * channels * 8;
  T16 *state = mine.states[0], *adjoint = mine.states[BUFFERS - 1];

  load_state_columns(m.b, b, b_stride, first, count, 0);
  load_state_columns(m.c, c, c_stride, first, count, 0);
  copy_async_commit();
  for (int i = lane; i < (int)sizeof(Mine) / 16; i += 32) ((uint4 *)&mine)[i] = make_uint4(0u, 0u, 0u, 0u);
  __syncwarp();
  auto load_inputs = [&](const Unit &unit) {
    load_unit(mine.x, x, x_stride, first, count, unit);
    load_unit(mine.dy, dy, dy_stride, first, count, unit);
    copy_async_commit();
    if (BUFFERS == 2) {
      if (has_adjoint) load_state(adjoint, adjoints, channels, unit);
      copy_async_commit();
    }
  };
  int head = blockIdx.x * group + warp, part = 0;
  /* Of the head that comes next, on their way long before they are used. */
  TDT raw[2] = {};
  float next_bias = 0.0f, next_log_rate = 0.0f, next_skip = 0.0f;
  auto load_head = [&](int h) {
    load_raw_steps(raw, dt, dt_stride, first, count, h);
    next_bias = dt_bias[h];
    next_log_rate = a_log[h];
    if (!D_PER_CHANNEL) next_skip = d[h];
  };
  if (head < end) {
    Unit unit(head, 0);
    if (has_state) load_state(state, states, channels, unit);
    copy_async_commit();
    load_inputs(unit);
    load_head(head);
    copy_async_wait<BUFFERS + 1>();
  } else {
    copy_async_wait<0>();
  }
  __syncthreads();
  products(m, strips);
  __syncthreads();

  float w[10][8] = {};
  Steps steps = {};
  float inner = 0.0f, skip = 0.0f, rate = 0.0f, skip_factor = 0.0f;
  while (head < end) {
    Unit unit(head, part);
    int next_head = part + 1 < PARTS ? head : head + WARPS, next_part = part + 1 < PARTS ? part + 1 : 0;
    Unit next(min(next_head, end - 1), next_part);
    if (part == 0) {
      steps.find(raw, count, next_bias, next_log_rate, dt_min, dt_max);
      rate = rate_of(next_log_rate);
      skip_factor = next_skip;
      *(float2 *)(mine.steps + 2 * lane) = make_float2(steps.step[0], steps.step[1]);
      *(float2 *)(mine.logs + 2 * lane) = make_float2(steps.log[0], steps.log[1]);
      #pragma unroll
      for (int strip = 0; strip < 3; strip++) {
        float end = __shfl_sync(FULL_WARP, steps.log[1], 8 * strip + 7);
        *(float2 *)(mine.left[strip] + 2 * lane) = make_float2(fast_exp2(fminf(steps.log[0] - end, 0.0f)), fast_exp2(fminf(steps.log[1] - end, 0.0f)));
      }
      inner = skip = 0.0f;
    }
    if (next_head < end) {
      if (next_part == 0) load_head(next_head);
      if (has_state) prefetch_state(states, channels, next);
      if (has_adjoint) prefetch_state(adjoints, channels, next);
      for (int i = lane; i < count; i += 32) {
        prefetch_l2(x + (first + i) * x_stride + next.channel);
        prefetch_l2(dy + (first + i) * dy_stride + next.channel);
      }
    }
    float along[4][2] = {};
    copy_async_wait<BUFFERS>();
    __syncwarp();
    #pragma unroll
    for (int s0 = 0; s0 < 4; s0 += SP) {
      if (s0 >= strips) continue;
      float sum[SP][NT][4] = {};
      if (has_state) times_state(sum, m.c, state, s0);
      if (s0 == 0) {
        copy_async_wait<BUFFERS - 1>();
        __syncwarp();
        clear_neighbour<TX>(mine.x, unit);
        clear_neighbour<TDY>(mine.dy, unit);
        __syncwarp();
      }
      #pragma unroll
      for (int s = 0; s < SP; s++) {
        u32 rows[KT][4];
        load_rows(rows, mine.dy, s0 + s);
        row_products(along[s0 + s], sum[s], rows);
      }
    }
    if (BUFFERS == 1) {
      __syncwarp();
      if (has_adjoint) load_state(adjoint, adjoints, channels, unit);
      copy_async_commit();
    } else {
      copy_async_wait<0>();
      __syncwarp();
      if (has_state && has_adjoint) inner += inner_product(state, nullptr, channels, adjoint, unit);
      __syncwarp();
      if (next_head < end && has_state) load_state(state, states, channels, next);
      copy_async_commit();
    }

    float columns[4][4] = {}, last = steps.last;
    #pragma unroll
    for (int s0 = 0; s0 < 4; s0 += SP) {
      if (s0 >= strips) continue;
      float u[SP][NT][4] = {}, v[SP][NT][4] = {};
      RowSums sums[SP];
      #pragma unroll
      for (int s = 0; s < SP; s++) {
        int strip = s0 + s;
        if (strip >= strips) continue;
        int row = 16 * strip + g;
        float log[2] = {mine.logs[row], mine.logs[row + 8]}, step[2] = {mine.steps[row], mine.steps[row + 8]};
        u32 rows[KT][4];
        load_rows(rows, mine.x, strip);
        if (PW % 16 == 8) rows[KT - 1][2] = rows[KT - 1][3] = 0u;
        if (strip < 3 && strip + 1 < strips) {
          float end = mine.logs[16 * strip + 15], left[2] = {fast_exp2(end - log[0]), fast_exp2(end - log[1])};
          float factors[2] = {step[0] * left[0], step[1] * left[1]};
          #pragma unroll
          for (int i = strip + 1; i < 4; i++) {
            int block = first_block(strip) + i - strip;
            if (i < strips) later_block(mine.dy, mine.left[strip < 3 ? strip : 0], m.k + block * 256, w[block], columns[i], sums[s], u[s], rows, factors, 16 * i);
          }
          #pragma unroll
          for (int j = 0; j < 2; j++) {
            sums[s].net[j] *= left[j];
            #pragma unroll
            for (int p = 0; p < NT; p++) u[s][p][2 * j] *= left[j], u[s][p][2 * j + 1] *= left[j];
          }
        }
        own_block(mine.dy, mine.logs, m.k + first_block(strip) * 256, w[first_block(strip)], columns[strip], sums[s], u[s], skip, rows, log,
          step, 16 * strip);
      }
      if (BUFFERS == 1 && s0 == 0) {
        copy_async_wait<0>();
        __syncwarp();
        const T16 *before = states + (i64)unit.channel * 8;
        if (has_state && has_adjoint) inner += inner_product(nullptr, before, channels, adjoint, unit);
      }
      if (has_adjoint) times_state(v, m.b, adjoint, s0);
      #pragma unroll
      for (int s = 0; s < SP; s++) {
        int strip = s0 + s, row = 16 * strip + g;
        if (strip >= strips) continue;
        u32 rows[KT][4];
        float ahead[2], step[2], log[2], *net = sums[s].net, *own = sums[s].own;
        load_rows(rows, mine.x, strip);
        row_products(ahead, v[s], rows);
        load_rows(rows, mine.dy, strip);
        #pragma unroll
        for (int j = 0; j < 2; j++) {
          step[j] = mine.steps[row + 8 * j];
          log[j] = mine.logs[row + 8 * j];
          float left = fast_exp2(last - log[j]);
          ahead[j] *= left;
          #pragma unroll
          for (int p = 0; p < NT; p++) {
            int channel = unit.channel - unit.shift + 8 * p + 2 * t;
            float low, high, skip_low = skip_factor, skip_high = skip_factor;
            if (D_PER_CHANNEL) {
              skip_low = d[min(max(channel, 0), channels - 1)];
              skip_high = d[min(max(channel + 1, 0), channels - 1)];
            }
            unpack2(rows[p >> 1][2 * (p & 1) + j], low, high);
            u[s][p][2 * j] = skip_low * low + step[j] * (u[s][p][2 * j] + left * v[s][p][2 * j]);
            u[s][p][2 * j + 1] = skip_high * high + step[j] * (u[s][p][2 * j + 1] + left * v[s][p][2 * j + 1]);
          }
        }
        float direct = sum_of_row(net[0] + own[0] + ahead[0], net[1] + own[1] + ahead[1]);
        float passed = sum_of_row(fast_exp2(log[0]) * along[strip][0] - step[0] * net[0], fast_exp2(log[1]) * along[strip][1] - step[1] * net[1]);
        float later = sum_of_row(step[0] * ahead[0], step[1] * ahead[1]);
        if (t < 2) {
          int at = row + 8 * t;
          mine.direct[at] = (part ? mine.direct[at] : 0.0f) + direct;
          mine.along[at] = (part ? mine.along[at] : 0.0f) + passed;
          mine.ahead[at] = (part ? mine.ahead[at] : 0.0f) + later;
        }
        store_dx(dx + (first + 16 * strip) * dx_stride + unit.channel, dx_stride, u[s], count - 16 * strip, unit);
      }
    }
    #pragma unroll
    for (int i = 0; i < 4; i++) {
      /* Of the sums over the 16 rows, a lane ends with that of half g & 1, its column g >> 1 & 1. */
      bool second = g & 1, odd = g & 2;
      float *v = columns[i];
      float low = (second ? v[2] : v[0]) + __shfl_xor_sync(FULL_WARP, second ? v[0] : v[2], 4);
      float high = (second ? v[3] : v[1]) + __shfl_xor_sync(FULL_WARP, second ? v[1] : v[3], 4);
      float sum = (odd ? high : low) + __shfl_xor_sync(FULL_WARP, odd ? low : high, 8);
      sum += __shfl_xor_sync(FULL_WARP, sum, 16);
      int at = 16 * i + 8 * (g & 1) + 2 * t + (g >> 1);
      if (g < 4) mine.across[at] = (part ? mine.across[at] : 0.0f) + sum;
    }
    float *parts = parameter_parts + (((i64)(first_row + blockIdx.y) * chunks + chunk) * all_heads + head) * NUMBERS;
    if (D_PER_CHANNEL) {
      for (int p = lane; p < unit.count; p += 32) {
        float sum = 0.0f;
        for (int row = 0; row < count; row++) sum += to_float(mine.x[row * XS + p + unit.shift]) * to_float(mine.dy[row * XS + p + unit.shift]);
        parts[2 + part * PW + p] = sum;
      }
    }
    __syncwarp();
    if (next_head < end) {
      if (BUFFERS == 1) {
        if (has_state) load_state(state, states, channels, next);
        copy_async_commit();
      }
      load_inputs(next);
    }
    if (next_part == 0) {
      float change, rate_change;
      finish_steps(mine, steps, rate, warp_sum(inner) * fast_exp2(last), ddt + first * ddt_stride + head, ddt_stride,
        count, change, rate_change);
      if (!D_PER_CHANNEL) skip = warp_sum(skip);
      if (lane == 0) {
        parts[0] = change;
        parts[1] = rate_change;
        if (!D_PER_CHANNEL) parts[2] = skip;
      }
      __syncwarp();
    }
    head = next_head;
    part = next_part;
  }
  copy_async_wait<0>();
  __syncthreads();
  /* W of all warps together, in the operands' memory. */
  float *all = (float *)memory;
  #pragma unroll
  for (int i = 0; i < 10; i++) {
    float4 *to = (float4 *)(all + warp * 2560 + i * 256 + lane * 4);
    to[0] = make_float4(w[i][0], w[i][1], w[i][2], w[i][3]);
    to[32] = make_float4(w[i][4], w[i][5], w[i][6], w[i][7]);
  }
  __syncthreads();
  weights += (((i64)blockIdx.y * chunks + chunk) * gridDim.x + blockIdx.x) * 2560;
  for (int i = threadIdx.x; i < 640; i += THREADS) {
    float4 sum = ((const float4 *)all)[i];
    #pragma unroll
    for (int other = 1; other < WARPS; other++) {
      float4 more = ((const float4 *)(all + other * 2560))[i];
      sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
    }
    ((float4 *)weights)[i] = sum;
  }
  if (blockIdx.x + 1 < gridDim.x) return;
  int pads = -channels & 15;
  for (int i = threadIdx.x; i < count * pads; i += THREADS) dx[(first + i / pads) * dx_stride + channels + i % pads] = from_float<TDX>(0.0f);
  pads = -all_heads & 15;
  for (int i = threadIdx.x; i < count * pads; i += THREADS) ddt[(first + i / pads) * ddt_stride + all_heads + i % pads] = from_float<TDDT>(0.0f);
}
`;
