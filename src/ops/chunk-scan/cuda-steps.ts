/**
 * CUDA C of the recurrence step by step, with the state in registers, for float32 and for short sequences.
 *
 * Eight lanes share a row of the state (one channel, N elements) and hold K of them each, in vectors of four when N
 * allows; a lane has ROWS such rows, so that a load of b and c serves them all. Channels of all heads lie in one line, as
 * in x, so any head size P works: a warp takes 4 * ROWS channels, whatever heads they belong to.
 *
 * A step of a row of 128 is 48 multiply-adds a lane; four rows share 8 loads of b and c, so that long sequences are bound
 * by arithmetic: 16 x 1024 steps of 1536 channels are 330 million instructions of a warp, 0.4 ms on 132 multiprocessors.
 *
 * Defines: N; ROWS, 1, 2 or 4; TX, TB, TC, TDT, TY, the types of x, b, c, dt and y.
 */

import { SCAN_PARAMETERS } from './cuda-parameters.ts';

export const STEPS_SOURCE = String.raw`${SCAN_PARAMETERS}
#define LANES 8
#define VECTORS (N % 4 == 0)
#define K (VECTORS ? 4 * ((N + 31) / 32) : (N + 7) / 8)
#define WARP_ROWS (4 * ROWS)
/* Columns of b and c in shared memory, steps of one stage there, and steps whose sums are reduced together: eight sums. */
#define NS (LANES * K)
#define STAGE 16
#define UNROLL (8 / ROWS)
/* Blocks that a multiprocessor shall have room for. */
#define LEAST_BLOCKS (K * ROWS > 64 ? 1 : K * ROWS > 32 ? 2 : 3)

/* The lane's elements of a row of N: n = 32 i + 4 lane + 0..3 in vectors, else 8 i + lane; zero past N. */
template <typename T> __device__ __forceinline__ void load_lane(float (&out)[K], const T *row, int lane) {
  if constexpr (VECTORS) {
    #pragma unroll
    for (int i = 0; i < K; i += 4) {
      int n = 8 * i + 4 * lane;
      float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      if (N % 32 == 0 || n < N) load_row<4>(v, row + n);
      #pragma unroll
      for (int e = 0; e < 4; e++) out[i + e] = v[e];
    }
  } else {
    #pragma unroll
    for (int i = 0; i < K; i++) out[i] = 8 * i + lane < N ? to_float(row[8 * i + lane]) : 0.0f;
  }
}
__device__ __forceinline__ void store_lane(float *row, const float (&in)[K], int lane) {
  if constexpr (VECTORS) {
    #pragma unroll
    for (int i = 0; i < K; i += 4) {
      int n = 8 * i + 4 * lane;
      if (N % 32 == 0 || n < N) *(float4 *)(row + n) = make_float4(in[i], in[i + 1], in[i + 2], in[i + 3]);
    }
  } else {
    #pragma unroll
    for (int i = 0; i < K; i++) if (8 * i + lane < N) row[8 * i + lane] = in[i];
  }
}
/* The lane's elements of a staged row, which has NS columns. */
__device__ __forceinline__ void read_lane(float (&out)[K], const float *row, int lane) {
  if constexpr (VECTORS) {
    #pragma unroll
    for (int i = 0; i < K; i += 4) {
      float4 v = *(const float4 *)(row + 8 * i + 4 * lane);
      out[i] = v.x; out[i + 1] = v.y; out[i + 2] = v.z; out[i + 3] = v.w;
    }
  } else {
    #pragma unroll
    for (int i = 0; i < K; i++) out[i] = row[8 * i + lane];
  }
}

/* S = S decay + (dt x) b; returns the lane's part of S c. */
__device__ __forceinline__ float advance(float (&s)[K], float decay, float dx, const float (&b)[K], const float (&c)[K]) {
  float sums[2] = {0.0f, 0.0f};
  #pragma unroll
  for (int i = 0; i < K; i++) {
    s[i] = fmaf(s[i], decay, dx * b[i]);
    sums[i & 1] = fmaf(s[i], c[i], sums[i & 1]);
  }
  return sums[0] + sums[1];
}

/* Sums of eight values each over the eight lanes: halves are exchanged and added, until lane l has that of value l. */
__device__ __forceinline__ float reduce_lanes(float (&v)[8], int lane) {
  #pragma unroll
  for (int mask = 4; mask > 0; mask >>= 1) {
    bool upper = (lane & mask) != 0;
    #pragma unroll
    for (int i = 0; i < mask; i++) {
      float sent = upper ? v[i] : v[i + mask];
      float kept = upper ? v[i + mask] : v[i];
      v[i] = kept + __shfl_xor_sync(FULL_WARP, sent, mask);
    }
  }
  return v[0];
}

/* A few steps: the state goes from memory to registers and back once, and nothing is shared. Grid (channels, batch). */
extern "C" __global__ void __launch_bounds__(128, K * ROWS > 32 ? 1 : 5) scan_short(PARAMETERS, int headdim) {
  int lane = threadIdx.x & 7, group = (threadIdx.x >> 3) & 3, batch = blockIdx.y;
  int first = (blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5)) * WARP_ROWS + group;
  int channels = heads * headdim, padded = (channels + 15) / 16 * 16;
  int slot = slotTable ? slots[batch] : 0, real = lengths ? min(lengths[batch], length) : length;
  float s[ROWS][K], bs[K], cs[K], in[ROWS], raw[ROWS], bias[ROWS], rate[ROWS], skip[ROWS];
  int channel[ROWS], at[ROWS], head[ROWS];
  #pragma unroll
  for (int r = 0; r < ROWS; r++) {
    channel[r] = first + 4 * r;
    at[r] = min(channel[r], channels - 1);
    head[r] = at[r] / headdim;
  }
  auto load_step = [&](int t) {
    i64 row = (i64)batch * length + t;
    load_lane(bs, b + row * bStride, lane);
    load_lane(cs, c + row * cStride, lane);
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
      in[r] = to_float(x[row * xStride + at[r]]);
      raw[r] = to_float(dt[row * dtStride + head[r]]);
    }
  };
  /* What does not wait for the slot's address comes first. */
  load_step(0);
  #pragma unroll
  for (int r = 0; r < ROWS; r++) {
    bias[r] = dtBias[head[r]];
    rate[r] = aLog[head[r]];
    skip[r] = d[dPerChannel ? at[r] : head[r]];
  }
  float *state = slotTable ? (float *)(slotTable[slot] + stateOffset) : nullptr;
  #pragma unroll
  for (int r = 0; r < ROWS; r++) {
    if (state) load_lane(s[r], state + (i64)at[r] * N, lane);
    else {
      #pragma unroll
      for (int i = 0; i < K; i++) s[r][i] = 0.0f;
    }
    rate[r] = expf(rate[r]);
  }
  for (int t = 0; t < length; t++) {
    bool there = t < real;
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float sum = 0.0f;
      if (there) {
        float step = step_size(raw[r], bias[r], dtMin, dtMax);
        sum = advance(s[r], expf(-rate[r] * step), step * in[r], bs, cs);
      }
      #pragma unroll
      for (int mask = 4; mask > 0; mask >>= 1) sum += __shfl_xor_sync(FULL_WARP, sum, mask);
      if (lane == 0 && channel[r] < padded) {
        float value = there && channel[r] < channels ? fmaf(skip[r], in[r], sum) : 0.0f;
        y[((i64)batch * length + t) * yStride + channel[r]] = from_float<TY>(value);
      }
    }
    if (t + 1 < length) load_step(t + 1);
  }
  if (state && real > 0) {
    #pragma unroll
    for (int r = 0; r < ROWS; r++) if (channel[r] < channels) store_lane(state + (i64)channel[r] * N, s[r], lane);
  }
}

/* Stages four columns of a row, zeros past its end or for a step that is not there. */
__device__ __forceinline__ void stage4(float *to, const float *from, int count, bool valid) {
  if (count >= 4) copy_async16(to, from, valid);
  else for (int e = 0; e < 4; e++) to[e] = valid && e < count ? from[e] : 0.0f;
}
template <typename T> __device__ __forceinline__ void stage4(float *to, const T *from, int count, bool valid) {
  for (int e = 0; e < 4; e++) to[e] = valid && e < count ? to_float(from[e]) : 0.0f;
}

/*
 * Many steps: b, c, x of STAGE steps at a time are copied to shared memory while the steps before them run; step sizes
 * and decays of the block's heads likewise. Grid (channels, batch); a block: 4 ROWS channels a warp.
 */
extern "C" __global__ void __launch_bounds__(256, LEAST_BLOCKS) scan_steps(PARAMETERS, int headdim) {
  extern __shared__ float shared[];
  int thread = threadIdx.x, threads = blockDim.x, lane = thread & 7, group = (thread >> 3) & 3, batch = blockIdx.y;
  int columns = (threads >> 5) * WARP_ROWS, start = blockIdx.x * columns;
  int channels = heads * headdim, padded = (channels + 15) / 16 * 16;
  /* Two buffers of b and c [STAGE][NS], x [STAGE][columns], steps and decays [STAGE][columns] (heads are no more). */
  float *bs = shared, *cs = bs + 2 * STAGE * NS, *xs = cs + 2 * STAGE * NS;
  float *steps = xs + 2 * STAGE * columns, *decays = steps + 2 * STAGE * columns;
  int firstHead = min(start, channels - 1) / headdim, blockHeads = (min(start + columns, channels) - 1) / headdim - firstHead + 1;
  blockHeads = max(blockHeads, 1);
  float *state = slotTable ? (float *)(slotTable[slots[batch]] + stateOffset) : nullptr;
  int real = lengths ? min(lengths[batch], length) : length;
  i64 rows = (i64)batch * length;

  int local = (thread >> 5) * WARP_ROWS + group;
  float s[ROWS][K];
  int head[ROWS];
  #pragma unroll
  for (int r = 0; r < ROWS; r++) {
    int at = min(start + local + 4 * r, channels - 1);
    head[r] = at / headdim - firstHead;
    if (state) load_lane(s[r], state + (i64)at * N, lane);
    else {
      #pragma unroll
      for (int i = 0; i < K; i++) s[r][i] = 0.0f;
    }
  }
  /* What this lane writes of UNROLL steps: one row, one step. */
  int mineStep = lane % UNROLL, mineColumn = local + 4 * (lane / UNROLL), mineChannel = start + mineColumn;
  bool writes = mineChannel < padded;
  int mineAt = min(mineChannel, channels - 1);
  float skip = d[dPerChannel ? mineAt : mineAt / headdim];

  auto stage = [&](int t0, int buffer) {
    for (int i = thread; i < STAGE * (NS / 4); i += threads) {
      int t = i / (NS / 4), n = i % (NS / 4) * 4;
      bool valid = t0 + t < real;
      i64 row = rows + (valid ? t0 + t : 0);
      stage4(bs + (buffer * STAGE + t) * NS + n, b + row * bStride + n, N - n, valid);
      stage4(cs + (buffer * STAGE + t) * NS + n, c + row * cStride + n, N - n, valid);
    }
    for (int i = thread; i < STAGE * (columns / 4); i += threads) {
      int t = i / (columns / 4), column = i % (columns / 4) * 4;
      bool valid = t0 + t < real;
      i64 row = rows + (valid ? t0 + t : 0);
      stage4(xs + (buffer * STAGE + t) * columns + column, x + row * xStride + start + column, channels - start - column, valid);
    }
    copy_async_commit();
  };
  auto raw_step = [&](int t0, int i) {
    int t = t0 + i / blockHeads;
    return t < real ? to_float(dt[(rows + t) * dtStride + firstHead + i % blockHeads]) : 0.0f;
  };
  auto keep_step = [&](int t0, int buffer, int i, float raw) {
    int t = i / blockHeads, h = i % blockHeads;
    float step = t0 + t < real ? step_size(raw, dtBias[firstHead + h], dtMin, dtMax) : 0.0f;
    steps[(buffer * STAGE + t) * columns + h] = step;
    decays[(buffer * STAGE + t) * columns + h] = step > 0.0f ? expf(-expf(aLog[firstHead + h]) * step) : 1.0f;
  };
  int stepCount = STAGE * blockHeads, end = (real + STAGE - 1) / STAGE * STAGE;
  stage(0, 0);
  for (int i = thread; i < stepCount; i += threads) keep_step(0, 0, i, raw_step(0, i));
  int buffer = 0;
  for (int t0 = 0; t0 < end; t0 += STAGE, buffer ^= 1) {
    copy_async_wait<0>();
    __syncthreads();
    bool more = t0 + STAGE < end;
    float raw = 0.0f;
    if (more) {
      stage(t0 + STAGE, buffer ^ 1);
      if (thread < stepCount) raw = raw_step(t0 + STAGE, thread);
    }
    for (int u0 = 0; u0 < STAGE; u0 += UNROLL) {
      float sums[8];
      #pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        int t = buffer * STAGE + u0 + u;
        float bt[K], ct[K];
        read_lane(bt, bs + t * NS, lane);
        read_lane(ct, cs + t * NS, lane);
        #pragma unroll
        for (int r = 0; r < ROWS; r++) {
          float dx = steps[t * columns + head[r]] * xs[t * columns + local + 4 * r];
          sums[r * UNROLL + u] = advance(s[r], decays[t * columns + head[r]], dx, bt, ct);
        }
      }
      float sum = reduce_lanes(sums, lane);
      int t = t0 + u0 + mineStep;
      if (writes && t < length) {
        float in = xs[(buffer * STAGE + u0 + mineStep) * columns + mineColumn];
        y[(rows + t) * yStride + mineChannel] = from_float<TY>(mineChannel < channels ? fmaf(skip, in, sum) : 0.0f);
      }
    }
    if (more) {
      if (thread < stepCount) keep_step(t0 + STAGE, buffer ^ 1, thread, raw);
      for (int i = thread + threads; i < stepCount; i += threads) keep_step(t0 + STAGE, buffer ^ 1, i, raw_step(t0 + STAGE, i));
    }
  }
  /* Rows past the real steps. */
  for (int i = thread; i < (length - min(end, length)) * columns; i += threads) {
    int t = min(end, length) + i / columns, column = start + i % columns;
    if (column < padded) y[(rows + t) * yStride + column] = from_float<TY>(0.0f);
  }
  if (state && real > 0) {
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
      int channel = start + local + 4 * r;
      if (channel < channels) store_lane(state + (i64)channel * N, s[r], lane);
    }
  }
}
`;
