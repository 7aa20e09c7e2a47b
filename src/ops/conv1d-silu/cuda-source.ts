/** Device code of the causal convolution with SiLU: sequences, and single steps. */

/** Loads of a channel's taps and bias, also for the gradient. Needs TAPS, FIND_SEGMENT and `PACKED_SOURCE`. */
export const TAPS_SOURCE = String.raw`
/* Taps and biases of 4 channels, the first live of them; zero for the others. */
__device__ __forceinline__ void load_taps(float (&w)[4][TAPS], float (&b)[4], const float *weight, const float *bias, int channel, int live) {
  #pragma unroll
  for (int j = 0; j < 4; j++) {
    b[j] = j < live && bias ? bias[channel + j] : 0.0f;
    #pragma unroll
    for (int k = 0; k < TAPS; k++) w[j][k] = 0.0f;
    if (j < live) load_row<TAPS>(w[j], weight + (i64)(channel + j) * TAPS);
  }
}
__device__ __forceinline__ void zero_pads(float (&v)[4], int live) {
  if (live < 4) {
    #pragma unroll
    for (int j = 0; j < 4; j++) if (j >= live) v[j] = 0.0f;
  }
}
`;

export const SEQUENCE_SOURCE = String.raw`
/* y[t] = silu(bias + sum_k w[k] x[t - TAPS + 1 + k]); x, y: (batch, length, columns), state: (TAPS - 1, channels) in
   a slot. A thread has 4 columns of a piece of steps of a sequence; the loads of AHEAD steps are under way while the AHEAD
   before them are computed. The one with the first steps is the only one that reads the window, and it writes the new one. */
extern "C" __global__ void __launch_bounds__(128, 5) conv1d_silu(
    const X *__restrict__ x, int x_stride, Y *__restrict__ y, int y_stride, const float *__restrict__ weight,
    const float *__restrict__ bias, char *const *slot_table, i64 state_offset, const int *slots, const int *lengths,
    int channels, int batch, int length, int pieces, int steps, int columns, SEGMENT_PARAMETERS) {
  u32 vectors = (u32)columns / 4;
  u32 id = blockIdx.x * 128u + threadIdx.x;
  u32 place = id / vectors;
  int column = (int)(id - place * vectors) * 4;
  int b = (int)(place / (u32)pieces);
  int t0 = (int)(place - (u32)b * (u32)pieces) * steps;
  if (b >= batch) return;
  const X *from = x + (i64)b * length * x_stride + column;
  Y *to = y + (i64)b * length * y_stride + column;
  FIND_SEGMENT(column)

  int end = t0 + steps < length ? t0 + steps : length;
  Packed<X, 4> ahead[AHEAD], before[TAPS - 1];
  #pragma unroll
  for (int k = 0; k < TAPS - 1; k++) {
    int t = t0 - (TAPS - 1) + k;
    clear(before[k]);
    if (t >= 0) load_packed(before[k], from + (i64)t * x_stride);
  }
  auto load = [&](int first) {
    #pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      clear(ahead[i]);
      if (first + i < end) load_packed(ahead[i], from + (i64)(first + i) * x_stride);
    }
  };
  load(t0);
  float w[4][TAPS], offset[4], window[TAPS - 1][4];
  load_taps(w, offset, weight, bias, channel, live);
  #pragma unroll
  for (int k = 0; k < TAPS - 1; k++) unpack(window[k], before[k]);

  if (slot_table && t0 == 0) {
    float *state = (float *)(slot_table[slots[b]] + state_offset) + channel;
    #pragma unroll
    for (int k = 0; k < TAPS - 1; k++) {
      for (int j = 0; j < 4; j++) window[k][j] = j < live ? state[(i64)k * channels + j] : 0.0f;
    }
    /* Row k comes from a later row of the window or from x, so that going up in k overwrites nothing that is needed. */
    int real = lengths ? lengths[b] : length;
    for (int k = 0; k < TAPS - 1 && real > 0; k++) {
      int t = real - (TAPS - 1) + k;
      for (int j = 0; j < 4 && j < live; j++) {
        state[(i64)k * channels + j] = t >= 0 ? to_float(from[(i64)t * x_stride + j]) : state[(i64)(k + real) * channels + j];
      }
    }
  }

  for (int first = t0; first < end; first += AHEAD) {
    Packed<X, 4> in[AHEAD];
    #pragma unroll
    for (int i = 0; i < AHEAD; i++) in[i] = ahead[i];
    load(first + AHEAD);
    #pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      float now[4], out[4];
      unpack(now, in[i]);
      #pragma unroll
      for (int j = 0; j < 4; j++) {
        float sum = offset[j];
        #pragma unroll
        for (int k = 0; k < TAPS - 1; k++) sum += w[j][k] * window[k][j];
        sum += w[j][TAPS - 1] * now[j];
        out[j] = sum * gate_sigmoid(sum);
        #pragma unroll
        for (int k = 0; k < TAPS - 2; k++) window[k][j] = window[k + 1][j];
        window[TAPS - 2][j] = now[j];
      }
      zero_pads(out, live);
      if (first + i < end) store_row<4>(to + (i64)(first + i) * y_stride, out);
    }
  }
}
`;

export const STEP_SOURCE = String.raw`
/* The same for one step; x, y: (batch, columns). A thread has one column of a sequence, and alone reads and writes that
   channel's window. */
extern "C" __global__ void __launch_bounds__(128) conv1d_silu_step(
    const X *__restrict__ x, int x_stride, Y *__restrict__ y, int y_stride, const float *__restrict__ weight,
    const float *__restrict__ bias, char *const *slot_table, i64 state_offset, const int *slots, const int *lengths,
    int channels, int columns, SEGMENT_PARAMETERS) {
  int column = blockIdx.x * 128 + threadIdx.x, b = blockIdx.y;
  if (column >= columns) return;
  FIND_SEGMENT(column)
  Y *to = y + (i64)b * y_stride + column;
  if (live <= 0) {
    *to = from_float<Y>(0.0f);
    return;
  }
  float *state = slot_table ? (float *)(slot_table[slots[b]] + state_offset) + channel : (float *)0;
  bool real = !lengths || lengths[b] > 0;
  float now = to_float(x[(i64)b * x_stride + column]);
  float w[TAPS], window[TAPS - 1];
  load_row<TAPS>(w, weight + (i64)channel * TAPS);
  float sum = bias ? bias[channel] : 0.0f;
  #pragma unroll
  for (int k = 0; k < TAPS - 1; k++) window[k] = state ? state[(i64)k * channels] : 0.0f;
  #pragma unroll
  for (int k = 0; k < TAPS - 1; k++) sum += w[k] * window[k];
  sum += w[TAPS - 1] * now;
  *to = from_float<Y>(sum * gate_sigmoid(sum));
  if (state && real) {
    #pragma unroll
    for (int k = 0; k < TAPS - 2; k++) state[(i64)k * channels] = window[k + 1];
    state[(i64)(TAPS - 2) * channels] = now;
  }
}
`;
