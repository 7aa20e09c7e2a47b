/**
 * CUDA text of the scan's gradient in float32: the recurrence step by step, forward for the states and backward for
 * their adjoint. A block carries the channels of one unit (a head, or PW channels of one) of one sequence; a thread
 * holds all of the unit's channels at its own columns of the state, so sums over channels (db, dc) stay in the thread
 * and sums over columns are exchanged between lanes.
 *
 * Defines: TX, TB, TC, TDT, TDY, TDX, TDDT: elements; P: channels of a head; PARTS, PW: units of a head and their
 * channels (a multiple of 8); N: columns of the state; NC: columns of a thread; THREADS.
 */

export const RECURRENT_SOURCE = String.raw`
#define STEPS 32
#define KEPT_STEPS 64
#define WARPS (THREADS / 32)

/* What both kernels read; chunks of STEPS steps. */
struct Chunk {
  float x[STEPS][PW], dy[STEPS][PW];
  float dt[STEPS], decay[STEPS], slope[STEPS], xy[STEPS];
};

/* Loads x and dy of steps first.. of the unit and derives their step sizes; zeros behind the last step. */
__device__ __forceinline__ void load_chunk(Chunk &k, const TX *x, int x_stride, const TDY *dy, int dy_stride, const TDT *dt,
    int dt_stride, i64 row, int count, int head, int channel, int width, float bias, float rate, float dt_min, float dt_max) {
  __syncthreads();
  for (int i = threadIdx.x; i < STEPS * PW; i += THREADS) {
    int s = i / PW, p = i % PW;
    bool live = s < count && p < width;
    k.x[s][p] = live ? to_float(x[(row + s) * x_stride + channel + p]) : 0.0f;
    k.dy[s][p] = live ? to_float(dy[(row + s) * dy_stride + channel + p]) : 0.0f;
  }
  if (threadIdx.x < STEPS) {
    int s = threadIdx.x;
    float raw = s < count ? to_float(dt[(row + s) * dt_stride + head]) + bias : 0.0f;
    float soft = softplus(raw);
    float step = fminf(fmaxf(soft, dt_min), dt_max);
    k.dt[s] = step;
    k.decay[s] = expf(-rate * step);
    k.slope[s] = soft < dt_min || soft > dt_max ? 0.0f : raw > 20.0f ? 1.0f : sigmoid(raw);
  }
  __syncthreads();
  if (threadIdx.x < STEPS) {
    float sum = 0.0f;
    for (int p = 0; p < PW; p++) sum += k.x[threadIdx.x][p] * k.dy[threadIdx.x][p];
    k.xy[threadIdx.x] = sum;
  }
  __syncthreads();
}

__device__ __forceinline__ float rate_of(const float *a_log, int head) { return fminf(expf(a_log[head]), 3e38f); }

/* Sums of 8 values over a warp: lane l has the sum of value (l >> 2) & 7. */
__device__ __forceinline__ float sums_of_8(const float (&v)[8]) {
  int lane = threadIdx.x & 31;
  float a[4], b[2];
  #pragma unroll
  for (int i = 0; i < 4; i++) {
    bool high = lane & 16;
    float mine = high ? v[i + 4] : v[i], other = high ? v[i] : v[i + 4];
    a[i] = mine + __shfl_xor_sync(FULL_WARP, other, 16);
  }
  #pragma unroll
  for (int i = 0; i < 2; i++) {
    bool high = lane & 8;
    float mine = high ? a[i + 2] : a[i], other = high ? a[i] : a[i + 2];
    b[i] = mine + __shfl_xor_sync(FULL_WARP, other, 8);
  }
  bool high = lane & 4;
  float mine = high ? b[1] : b[0], other = high ? b[0] : b[1];
  float sum = mine + __shfl_xor_sync(FULL_WARP, other, 4);
  sum += __shfl_xor_sync(FULL_WARP, sum, 2);
  return sum + __shfl_xor_sync(FULL_WARP, sum, 1);
}

/*
 * States forward. Grid (units, batch rows). dc_parts: (unit, step of all rows, NS columns); states: (row, unit, chunk of
 * KEPT_STEPS, PW, NS), what is there after each chunk but the last; along: (row, unit, step), dy' decay S[t - 1] c.
 */
extern "C" __global__ void __launch_bounds__(THREADS) scan_states(
    const TX *x, int x_stride, const TB *b, int b_stride, const TC *c, int c_stride, const TDT *dt, int dt_stride,
    const TDY *dy, int dy_stride, const float *dt_bias, const float *a_log, float *dc_parts, float *states, float *along,
    int first_row, int length, float dt_min, float dt_max) {
  __shared__ Chunk k;
  __shared__ float sums[STEPS][WARPS];
  int unit = blockIdx.x, head = unit / PARTS, part = unit % PARTS, row = blockIdx.y, tid = threadIdx.x;
  int channel = head * P + part * PW, width = min(PW, P - part * PW);
  int kept = (length + KEPT_STEPS - 1) / KEPT_STEPS;
  float rate = rate_of(a_log, head), bias = dt_bias[head];
  i64 in = (i64)(first_row + row) * length, out = ((i64)unit * gridDim.y + row) * length;
  float S[NC][PW];
  #pragma unroll
  for (int j = 0; j < NC; j++) {
    #pragma unroll
    for (int p = 0; p < PW; p++) S[j][p] = 0.0f;
  }
  for (int t0 = 0; t0 < length; t0 += STEPS) {
    int count = min(STEPS, length - t0);
    load_chunk(k, x, x_stride, dy, dy_stride, dt, dt_stride, in + t0, count, head, channel, width, bias, rate, dt_min, dt_max);
    float next_b[NC], next_c[NC];
    auto load = [&](int s) {
      #pragma unroll
      for (int j = 0; j < NC; j++) {
        int n = tid + j * THREADS;
        bool live = n < N && s < count;
        next_b[j] = live ? to_float(b[(in + t0 + s) * b_stride + n]) : 0.0f;
        next_c[j] = live ? to_float(c[(in + t0 + s) * c_stride + n]) : 0.0f;
      }
    };
    load(0);
    for (int s = 0; s < count; s++) {
      float bn[NC], cn[NC], decay = k.decay[s], step = k.dt[s], r = 0.0f;
      #pragma unroll
      for (int j = 0; j < NC; j++) bn[j] = next_b[j] * step, cn[j] = next_c[j];
      load(s + 1);
      #pragma unroll
      for (int j = 0; j < NC; j++) {
        float z = 0.0f;
        #pragma unroll
        for (int p = 0; p < PW; p++) {
          float carried = S[j][p] * decay;
          z += k.dy[s][p] * carried;
          S[j][p] = carried + k.x[s][p] * bn[j];
        }
        r += cn[j] * z;
        int n = tid + j * THREADS;
        if (n < N) dc_parts[(out + t0 + s) * NS + n] = z + bn[j] * k.xy[s];
      }
      r = warp_sum(r);
      if ((tid & 31) == 0) sums[s][tid >> 5] = r;
    }
    __syncthreads();
    if (tid < count) {
      float sum = 0.0f;
      for (int w = 0; w < WARPS; w++) sum += sums[tid][w];
      along[((i64)row * gridDim.x + unit) * length + t0 + tid] = sum;
    }
    int end = t0 + STEPS;
    if (end % KEPT_STEPS == 0 && end < length) {
      float *to = states + (((i64)row * gridDim.x + unit) * kept + end / KEPT_STEPS - 1) * PW * NS;
      #pragma unroll
      for (int j = 0; j < NC; j++) {
        int n = tid + j * THREADS;
        #pragma unroll
        for (int p = 0; p < PW; p++) if (n < N) to[p * NS + n] = S[j][p];
      }
    }
  }
}

/*
 * The adjoint G backward. Grid and scratch as above; db_parts as dc_parts; ddt_parts: (step, units), what each unit gives
 * to ddt; parameter_parts: (row of all, unit, 2 + PW): its part of dDtBias, dALog and of dD by channel.
 *
 * With g = decay G[t + 1]: dx = d dy + dt (g b + dy (c.b)), and D[t] (see op.ts) is <g, S> at the end of a chunk of
 * KEPT_STEPS steps plus what the steps from t on give and take: dy' decay S[t - 1] c - dt x' g b, which is small where
 * the decay is strong.
 */
extern "C" __global__ void __launch_bounds__(THREADS) scan_adjoint(
    const TX *x, int x_stride, const TB *b, int b_stride, const TC *c, int c_stride, const TDT *dt, int dt_stride,
    const TDY *dy, int dy_stride, TDX *dx, int dx_stride, const float *dt_bias, const float *a_log, const float *d,
    int d_per_channel, float *db_parts, const float *states, const float *along, float *ddt_parts, float *parameter_parts,
    int first_row, int length, float dt_min, float dt_max) {
  __shared__ Chunk k;
  /* Of every step: g b by channel, and c.b. */
  __shared__ float sums[STEPS][WARPS][PW + 1];
  __shared__ float cells[32];
  int unit = blockIdx.x, head = unit / PARTS, part = unit % PARTS, row = blockIdx.y, tid = threadIdx.x, lane = tid & 31;
  int channel = head * P + part * PW, width = min(PW, P - part * PW);
  int kept = (length + KEPT_STEPS - 1) / KEPT_STEPS;
  float rate = rate_of(a_log, head), bias = dt_bias[head];
  i64 in = (i64)(first_row + row) * length, out = ((i64)unit * gridDim.y + row) * length;
  /* The last unit zeroes the columns behind the last channel. */
  int channels = gridDim.x / PARTS * P, pads = unit == gridDim.x - 1 ? ((channels + 15) & ~15) - channels : 0;
  float G[NC][PW];
  #pragma unroll
  for (int j = 0; j < NC; j++) {
    #pragma unroll
    for (int p = 0; p < PW; p++) G[j][p] = 0.0f;
  }
  float decay = 0.0f, carried_d = 0.0f, bias_sum = 0.0f, rate_sum = 0.0f, skip_sum = 0.0f;
  for (int t0 = (length - 1) / STEPS * STEPS; t0 >= 0; t0 -= STEPS) {
    int count = min(STEPS, length - t0), end = t0 + STEPS;
    load_chunk(k, x, x_stride, dy, dy_stride, dt, dt_stride, in + t0, count, head, channel, width, bias, rate, dt_min, dt_max);
    if (end % KEPT_STEPS == 0 && end < length) {
      const float *from = states + (((i64)row * gridDim.x + unit) * kept + end / KEPT_STEPS - 1) * PW * NS;
      float sum = 0.0f;
      #pragma unroll
      for (int j = 0; j < NC; j++) {
        int n = tid + j * THREADS;
        #pragma unroll
        for (int p = 0; p < PW; p++) if (n < N) sum += G[j][p] * decay * from[p * NS + n];
      }
      carried_d = block_sum(sum, cells);
    }
    float next_b[NC], next_c[NC];
    auto load = [&](int s) {
      #pragma unroll
      for (int j = 0; j < NC; j++) {
        int n = tid + j * THREADS;
        bool live = n < N && s >= 0;
        next_b[j] = live ? to_float(b[(in + t0 + s) * b_stride + n]) : 0.0f;
        next_c[j] = live ? to_float(c[(in + t0 + s) * c_stride + n]) : 0.0f;
      }
    };
    load(count - 1);
    for (int s = count - 1; s >= 0; s--) {
      float bn[NC], cn[NC], v[PW], bc = 0.0f, step = k.dt[s];
      #pragma unroll
      for (int j = 0; j < NC; j++) bn[j] = next_b[j], cn[j] = next_c[j];
      load(s - 1);
      #pragma unroll
      for (int p = 0; p < PW; p++) v[p] = 0.0f;
      #pragma unroll
      for (int j = 0; j < NC; j++) {
        float z = 0.0f;
        #pragma unroll
        for (int p = 0; p < PW; p++) {
          float g = G[j][p] * decay;
          v[p] += g * bn[j];
          z += k.x[s][p] * g;
          G[j][p] = g + k.dy[s][p] * cn[j];
        }
        bc += bn[j] * cn[j];
        int n = tid + j * THREADS;
        if (n < N) db_parts[(out + t0 + s) * NS + n] = step * (z + cn[j] * k.xy[s]);
      }
      #pragma unroll
      for (int p = 0; p < PW; p += 8) {
        float eight[8];
        #pragma unroll
        for (int i = 0; i < 8; i++) eight[i] = v[p + i];
        float sum = sums_of_8(eight);
        if ((lane & 3) == 0) sums[s][tid >> 5][p + (lane >> 2)] = sum;
      }
      bc = warp_sum(bc);
      if (lane == 0) sums[s][tid >> 5][PW] = bc;
      decay = k.decay[s];
    }
    __syncthreads();
    for (int i = tid; i < count * (PW + 1); i += THREADS) {
      int s = i / (PW + 1), p = i % (PW + 1);
      float sum = 0.0f;
      for (int w = 0; w < WARPS; w++) sum += sums[s][w][p];
      sums[s][0][p] = sum;
    }
    __syncthreads();
    for (int i = tid; i < count * PW; i += THREADS) {
      int s = i / PW, p = i % PW;
      if (p >= width) continue;
      float skip = d[d_per_channel ? channel + p : head], output = k.dy[s][p];
      dx[(in + t0 + s) * dx_stride + channel + p] =
        from_float<TDX>(skip * output + k.dt[s] * (sums[s][0][p] + output * sums[s][0][PW]));
    }
    for (int i = tid; i < count * pads; i += THREADS) dx[(in + t0 + i / pads) * dx_stride + channels + i % pads] = from_float<TDX>(0.0f);
    if (tid < PW) for (int s = 0; s < count; s++) skip_sum += k.x[s][tid] * k.dy[s][tid];
    if (tid < 32) {
      /* A lane has a step. */
      float passed = 0.0f, taken = 0.0f, step = k.dt[lane];
      if (lane < count) {
        for (int p = 0; p < PW; p++) passed += k.x[lane][p] * sums[lane][0][p];
        taken = along[((i64)row * gridDim.x + unit) * length + t0 + lane] - step * passed;
        passed += k.xy[lane] * sums[lane][0][PW];
      }
      /* A step that leaves nothing has no D, and sums begin anew before it. */
      bool cut = rate * step > 27.0f, ends = cut;
      if (cut) taken = 0.0f;
      #pragma unroll
      for (int distance = 1; distance < 32; distance <<= 1) {
        float later = __shfl_down_sync(FULL_WARP, taken, distance);
        bool end = __shfl_down_sync(FULL_WARP, (int)ends, distance);
        if (lane + distance < 32 && !ends) taken += later, ends = end;
      }
      float decayed = ends ? taken : carried_d + taken;
      carried_d = __shfl_sync(FULL_WARP, decayed, 0);
      if (lane < count) {
        float change = (passed - rate * decayed) * k.slope[lane];
        ddt_parts[((i64)row * length + t0 + lane) * gridDim.x + unit] = change;
        bias_sum += change;
        rate_sum -= rate * step * decayed;
      }
    }
  }
  float *to = parameter_parts + ((i64)(first_row + row) * gridDim.x + unit) * (2 + PW);
  if (tid < 32) {
    bias_sum = warp_sum(bias_sum);
    rate_sum = warp_sum(rate_sum);
    if (lane == 0) to[0] = bias_sum, to[1] = rate_sum;
  }
  if (tid < PW) to[2 + tid] = skip_sum;
}
`;
