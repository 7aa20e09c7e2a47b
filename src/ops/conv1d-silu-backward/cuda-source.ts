/** Device code of the convolution's gradient. */

export const BACKWARD_SOURCE = String.raw`
#define SUMS (TAPS + 1)
/* With pre[t] = bias + sum_k w[k] x[t - TAPS + 1 + k], g[t] = dy[t] silu'(pre[t]): dx[u] = sum_k w[k] g[u + TAPS - 1 - k],
   and sums of g[t] x[t - TAPS + 1 + k] and g[t]. x, dy, dx: (batch, length, columns); partials: (gridDim.y, TAPS + 1,
   columns). A warp has a piece of steps of a sequence, a lane 4 columns of it; the piece's g are made to TAPS - 1 steps
   beyond its end, for its dx. The loads of AHEAD steps are under way while the AHEAD before them are computed. */
extern "C" __global__ void __launch_bounds__(256, 2) conv1d_silu_backward(
    const X *__restrict__ x, int x_stride, const DY *__restrict__ dy, int dy_stride, DX *__restrict__ dx, int dx_stride,
    const float *__restrict__ weight, const float *__restrict__ bias, float *__restrict__ partials, int batch, int length,
    int pieces, int steps, int columns, SEGMENT_PARAMETERS) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int column = (blockIdx.x * 32 + lane) * 4;
  int piece = blockIdx.y * 8 + warp;
  int b = piece / pieces;
  int t0 = (piece - b * pieces) * steps;
  bool present = column < columns && b < batch;
  int end = present ? (t0 + steps < length ? t0 + steps : length) : 0;
  int reach = present ? (end + TAPS - 1 < length ? end + TAPS - 1 : length) : 0;
  const X *x_from = x + (i64)b * length * x_stride + column;
  const DY *dy_from = dy + (i64)b * length * dy_stride + column;
  DX *to = dx + (i64)b * length * dx_stride + column;
  FIND_SEGMENT(column)
  if (!present) live = 0;

  Packed<X, 4> next_x[AHEAD], before[TAPS - 1];
  Packed<DY, 4> next_dy[AHEAD];
  auto load = [&](int first) {
    #pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      clear(next_x[i]);
      clear(next_dy[i]);
      if (first + i < reach) {
        load_packed(next_x[i], x_from + (i64)(first + i) * x_stride);
        load_packed(next_dy[i], dy_from + (i64)(first + i) * dy_stride);
      }
    }
  };
  #pragma unroll
  for (int k = 0; k < TAPS - 1; k++) {
    int t = t0 - (TAPS - 1) + k;
    clear(before[k]);
    if (present && t >= 0) load_packed(before[k], x_from + (i64)t * x_stride);
  }
  load(t0);
  float w[4][TAPS], offset[4];
  load_taps(w, offset, weight, bias, channel, live);
  float inputs[TAPS - 1][4], slopes[TAPS - 1][4] = {};
  #pragma unroll
  for (int k = 0; k < TAPS - 1; k++) unpack(inputs[k], before[k]);
#if TRAINED
  float sums[SUMS][4] = {};
#endif

  for (int first = t0; first < end + TAPS - 1; first += AHEAD) {
    Packed<X, 4> own_x[AHEAD];
    Packed<DY, 4> own_dy[AHEAD];
    #pragma unroll
    for (int i = 0; i < AHEAD; i++) { own_x[i] = next_x[i]; own_dy[i] = next_dy[i]; }
    load(first + AHEAD);
    #pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      int t = first + i;
      float now[4], g[4], out[4];
      unpack(now, own_x[i]);
      unpack(g, own_dy[i]);
      #pragma unroll
      for (int j = 0; j < 4; j++) {
        float pre = offset[j];
        #pragma unroll
        for (int k = 0; k < TAPS - 1; k++) pre += w[j][k] * inputs[k][j];
        pre += w[j][TAPS - 1] * now[j];
        float s = gate_sigmoid(pre);
        g[j] *= s * (1.0f + pre * (1.0f - s));
      }
#if TRAINED
      if (t < end) {
        #pragma unroll
        for (int j = 0; j < 4; j++) {
          #pragma unroll
          for (int k = 0; k < TAPS - 1; k++) sums[k][j] += g[j] * inputs[k][j];
          sums[TAPS - 1][j] += g[j] * now[j];
          sums[TAPS][j] += g[j];
        }
      }
#endif
      #pragma unroll
      for (int j = 0; j < 4; j++) {
        out[j] = w[j][0] * g[j];
        #pragma unroll
        for (int k = 1; k < TAPS; k++) out[j] += w[j][k] * slopes[TAPS - 1 - k][j];
        #pragma unroll
        for (int k = 0; k < TAPS - 2; k++) { inputs[k][j] = inputs[k + 1][j]; slopes[k][j] = slopes[k + 1][j]; }
        inputs[TAPS - 2][j] = now[j];
        slopes[TAPS - 2][j] = g[j];
      }
      int u = t - (TAPS - 1);
      zero_pads(out, live);
      if (u >= t0 && u < end) store_row<4>(to + (i64)u * dx_stride, out);
    }
  }

#if TRAINED
  __shared__ float room[8][SUMS][128];
  #pragma unroll
  for (int k = 0; k < SUMS; k++) store_row<4>(&room[warp][k][4 * lane], sums[k]);
  __syncthreads();
  for (int i = threadIdx.x; i < SUMS * 128; i += 256) {
    int k = i >> 7, at = blockIdx.x * 128 + (i & 127);
    float sum = 0.0f;
    #pragma unroll
    for (int p = 0; p < 8; p++) sum += room[p][k][i & 127];
    if (at < columns) partials[((i64)blockIdx.y * SUMS + k) * columns + at] = sum;
  }
#endif
}
`;

export const BACKWARD_SUMS_SOURCE = String.raw`
/* Adds the sums over the rows of partials, (count, TAPS + 1, columns), to dWeight (channels, TAPS) and dBias (channels). */
extern "C" __global__ void __launch_bounds__(1024) conv1d_silu_backward_sums(
    const float *partials, int count, float *weight_gradient, float *bias_gradient, int columns, SEGMENT_PARAMETERS) {
  int k = blockIdx.y, column = blockIdx.x * 32 + (threadIdx.x & 31);
  float *to = k < TAPS ? weight_gradient : bias_gradient;
  FIND_SEGMENT(column)
  bool wanted = to && column < columns && live > 0;
  float sum = partial_sum(partials + (i64)k * columns, count, (TAPS + 1) * columns, column, wanted);
  if (threadIdx.x < 32 && wanted) to[k < TAPS ? (i64)channel * TAPS + k : channel] += sum;
}
`;
