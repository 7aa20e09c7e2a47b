/**
 * CUDA text of the middle of a decoded layer: one step of the convolution and of the scan, and the gate, per head.
 *
 * A block owns PART channels of one head of one sequence. It asks for its part of the state first, then computes the
 * convolution of its channels and, like every other block of the sequence, of all of B and C; then each team of TEAM
 * lanes takes rows of the state (one channel, N numbers) on by a step and reads y out of them. The windows of its own
 * channels it moves on itself; the windows of B and C are still being read by other blocks, and the next launch (the
 * gated norm with out_proj) moves them.
 *
 * Defines: X, DT, Z, Y element types; P channels of a head; PART; N; TAPS; VEC floats of a load (4 or 1); TEAM; PER loads
 * of a lane for one row; THREADS; GATE multiplies y by silu(z); D_PER_CHANNEL.
 */
export const DECODE_MIX_SOURCE = String.raw`
#define TEAMS (THREADS / TEAM)
#define OWN ((PART + TEAMS - 1) / TEAMS)
#define SPAN (TEAM * VEC * PER)

/* Items of the convolution are N of B, N of C, then the block's channels of x. Where one lies, given where these begin. */
__device__ __forceinline__ int place_of(int item, int x, int b, int c) {
  return item < N ? b + item : item < 2 * N ? c + item - N : x + item - 2 * N;
}

__device__ __forceinline__ void load_taps(float (&weight)[TAPS], float &addend, const float *taps, const float *bias, int channel) {
  #pragma unroll
  for (int t = 0; t < TAPS; t++) weight[t] = taps[(i64)channel * TAPS + t];
  addend = bias ? bias[channel] : 0.0f;
}

/* Loads VEC floats of a row from column n on, zeros past the end. */
__device__ __forceinline__ void load_part(float (&out)[VEC], const float *row, int n) {
#if VEC == 4
  float4 v = n < N ? *(const float4 *)(row + n) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  out[0] = v.x; out[1] = v.y; out[2] = v.z; out[3] = v.w;
#else
  out[0] = n < N ? row[n] : 0.0f;
#endif
}

/*
 * x: (batch, all columns of the convolution's input), its three segments from x_column, b_column, c_column on, which are
 * the channels from x_start, b_start, c_start on; dt: (batch, heads); z, y: (batch, heads * P).
 * Grid: (parts of a head, heads, batch).
 */
extern "C" __global__ void __launch_bounds__(THREADS) decode_mix(
  const X *x, int x_stride, int x_column, int b_column, int c_column, int x_start, int b_start, int c_start, int channels,
  const float *taps, const float *conv_bias, int conv_offset, const DT *dt, int dt_stride, const float *dt_bias,
  const float *a_log, const float *d, float dt_min, float dt_max, int scan_offset, char **slot_table, const int *slots,
  const int *lengths, const Z *z, int z_stride, Y *y, int y_stride
) {
  __shared__ __align__(16) float b_row[SPAN];
  __shared__ __align__(16) float c_row[SPAN];
  __shared__ float x_part[PART];
  const int head = blockIdx.y, batch = blockIdx.z, first = blockIdx.x * PART, tid = threadIdx.x;
  const int count = P - first < PART ? P - first : PART;
  const int columns = gridDim.y * P;
  const int team = tid / TEAM, lane = tid % TEAM;
  const int items = 2 * N + count;
  y += (i64)batch * y_stride;
  x += (i64)batch * x_stride;
  let_next_kernel_start();

  /* What no other kernel writes, then what needs no state: all asked for before any of it is needed. */
  int item = tid, channel = place_of(item < items ? item : 0, x_start + head * P + first, b_start, c_start);
  float weight[TAPS], addend;
  load_taps(weight, addend, taps, conv_bias, channel);
  const float rate = a_log[head], shift = dt_bias[head];
  float skip[OWN];
  #pragma unroll
  for (int o = 0; o < OWN; o++) {
    const int p = team + o * TEAMS < count ? head * P + first + team + o * TEAMS : 0;
    skip[o] = d[D_PER_CHANNEL ? p : head];
  }
  wait_for_kernel_before();
  const int length = lengths ? lengths[batch] : 1;
  char *slot = slot_table[slots[batch]];
  X input = x[place_of(item < items ? item : 0, x_column + head * P + first, b_column, c_column)];
  const DT raw = dt[(i64)batch * dt_stride + head];
#if GATE
  Z gate[OWN];
  #pragma unroll
  for (int o = 0; o < OWN; o++) {
    const int p = team + o * TEAMS < count ? head * P + first + team + o * TEAMS : 0;
    gate[o] = z[(i64)batch * z_stride + p];
  }
#endif
  float *state = (float *)(slot + scan_offset) + (i64)(head * P + first) * N;
  float *windows = (float *)(slot + conv_offset);
  float window[TAPS];
  #pragma unroll
  for (int t = 0; t < TAPS - 1; t++) window[t] = windows[(i64)t * channels + channel];
  float s[OWN][PER][VEC];
  #pragma unroll
  for (int o = 0; o < OWN; o++) {
    #pragma unroll
    for (int i = 0; i < PER; i++) {
      for (int j = 0; j < VEC; j++) s[o][i][j] = 0.0f;
      if (team + o * TEAMS < count) load_part(s[o][i], state + (i64)(team + o * TEAMS) * N, (i * TEAM + lane) * VEC);
    }
  }

  /* Columns that pad y. */
  if (blockIdx.x == 0 && head == 0 && tid < 16 && columns + tid < ((columns + 15) & ~15)) y[columns + tid] = from_float<Y>(0.0f);
  y += head * P + first;
  if (length < 1) {
    for (int p = tid; p < count; p += THREADS) y[p] = from_float<Y>(0.0f);
    return;
  }

  while (item < items) {
    float sum = addend;
    window[TAPS - 1] = to_float(input);
    #pragma unroll
    for (int t = 0; t < TAPS; t++) sum += weight[t] * window[t];
    sum = silu(sum);
    if (item < N) b_row[item] = sum;
    else if (item < 2 * N) c_row[item - N] = sum;
    else {
      x_part[item - 2 * N] = sum;
      #pragma unroll
      for (int t = 0; t < TAPS - 1; t++) windows[(i64)t * channels + channel] = window[t + 1];
    }
    item += THREADS;
    if (item >= items) break;
    channel = place_of(item, x_start + head * P + first, b_start, c_start);
    load_taps(weight, addend, taps, conv_bias, channel);
    input = x[place_of(item, x_column + head * P + first, b_column, c_column)];
    #pragma unroll
    for (int t = 0; t < TAPS - 1; t++) window[t] = windows[(i64)t * channels + channel];
  }
  for (int i = N + tid; i < SPAN; i += THREADS) {
    b_row[i] = 0.0f;
    c_row[i] = 0.0f;
  }
  __syncthreads();

  const float step = fminf(fmaxf(softplus(to_float(raw) + shift), dt_min), dt_max);
  const float decay = expf(-expf(rate) * step);
  #pragma unroll
  for (int o = 0; o < OWN; o++) {
    const int p = team + o * TEAMS;
    const bool mine = p < count;
    const float channel_input = mine ? x_part[p] : 0.0f;
    float sum = 0.0f;
    #pragma unroll
    for (int i = 0; i < PER; i++) {
      const int n = (i * TEAM + lane) * VEC;
      float b[VEC], c[VEC];
#if VEC == 4
      load_row<4>(b, b_row + n);
      load_row<4>(c, c_row + n);
#else
      b[0] = b_row[n];
      c[0] = c_row[n];
#endif
      #pragma unroll
      for (int j = 0; j < VEC; j++) {
        s[o][i][j] = s[o][i][j] * decay + step * channel_input * b[j];
        sum += s[o][i][j] * c[j];
      }
      if (mine && n < N) store_row<VEC>(state + (i64)p * N + n, s[o][i]);
    }
    #pragma unroll
    for (int mask = TEAM / 2; mask > 0; mask >>= 1) sum += __shfl_xor_sync(FULL_WARP, sum, mask);
    if (mine && lane == 0) {
      sum += skip[o] * channel_input;
#if GATE
      sum *= silu(to_float(gate[o]));
#endif
      y[p] = from_float<Y>(sum);
    }
  }
}
`;
