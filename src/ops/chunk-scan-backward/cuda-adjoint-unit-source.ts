/**
 * CUDA text of the chunked gradient's second kernel, first part: its shared memory, and what a pair of warps computes of
 * one unit of a chunk. Follows `CHUNKED_SOURCE`; `cuda-adjoint-source.ts` has the maths and the rest.
 */

export const ADJOINT_UNIT_SOURCE = String.raw`
#define NT (PW / 8)
#define KT ((PW + 15) / 16)
/* Blocks of 16 columns of db or dc that a warp has at a time; 4 warps for each. */
#define DN (NP >= 128 ? 2 : 1)
#define WS (Q + 8)
/* Whether rows of dx are stored 8 channels at a time. */
#define DX_VECTORS (Same<TDX, T16>::value && P % 8 == 0)
#define VECTORS (R / 8)
/* Steps with A dt beyond this leave nothing: D is 0 there, and sums over steps begin anew. */
#define CUT 27.0f

/* Shared memory; what begins a line after another's end is not in use at the same time. */
struct Memory {
  T16 b[Q * BS], c[Q * BS], x[Q * XS], dy[Q * XS], adjoint[R * BS], state[R * BS];
  /* K of the 10 blocks of 16 x 16 on and above the diagonal, as lanes hold them; sums of W; W itself (T16 [Q][WS]). */
  float k[10 * 256], w[10 * 256];
  float steps[HEADS * Q], logs[HEADS * Q], slopes[HEADS * Q];
  /* x.u; exp(a) dy S0 c - row sums of w; dt exp(a[Q] - a) x E b; column sums of w by the warp's parity. */
  float direct[UNITS * Q], along[UNITS * Q], ahead[UNITS * Q], across[2][UNITS * Q];
  /* <E, S0> of 8 rows, by column group of the state's warps; sums of ddt and A dt D of each head. */
  float inner[R / 8][WN], sums[HEADS][2];
};

/* Brings a row of at most BYTES nearer: lines of 128 bytes, one of 4 threads' share. */
template <int BYTES> __device__ __forceinline__ void prefetch_row(const void *from, int bytes, int line) {
  int before = (int)((u64)from & 127);
  #pragma unroll
  for (int at = 0; at < BYTES + 96; at += 512) {
    if (at + line * 128 < bytes + before) prefetch_l2((const u8 *)from - before + at + line * 128);
  }
}

/* Two neighbouring elements. */
template <typename T> __device__ __forceinline__ void store_pair(T *to, float low, float high) { *(u32 *)to = pack2<T>(low, high); }
__device__ __forceinline__ void store_pair(float *to, float low, float high) { *(float2 *)to = make_float2(low, high); }

/* Sums of (16 steps of each of two strips) x (PW rows of a state): steps' rows (Q, NP) times the state's, 0 if not live. */
__device__ __forceinline__ void times_state(float (&sum)[2][NT][4], const T16 *steps, const T16 *state, const int (&strip)[2],
    bool live) {
  #pragma unroll
  for (int p = 0; p < NT; p++) {
    #pragma unroll
    for (int e = 0; e < 4; e++) sum[0][p][e] = sum[1][p][e] = 0.0f;
  }
  if (!live) return;
  int lane = threadIdx.x & 31;
  #pragma unroll 4
  for (int n = 0; n < NP; n += 16) {
    u32 a[2][4];
    ldmatrix4(a[0], left_rows(steps, BS, 16 * strip[0], n));
    ldmatrix4(a[1], left_rows(steps, BS, 16 * strip[1], n));
    #pragma unroll
    for (int p = 0; p < NT; p += 2) {
      if (p + 1 < NT) {
        u32 b[4];
        ldmatrix4(b, right_columns(state, BS, 8 * p, n));
        mma_pair(sum[0][p], sum[0][p + 1 < NT ? p + 1 : p], a[0], b);
        mma_pair(sum[1][p], sum[1][p + 1 < NT ? p + 1 : p], a[1], b);
      } else {
        u32 b[2];
        ldmatrix2(b, state + (8 * p + (lane & 7)) * BS + n + ((lane >> 3) & 1) * 8);
        mma16816<T16>(sum[0][p], a[0], b);
        mma16816<T16>(sum[1][p], a[1], b);
      }
    }
  }
}

/* Rows of x or dy of a strip, as the left operand: tile p of the unit's channels is in registers 2 (p & 1) + j of p >> 1. */
__device__ __forceinline__ void load_rows(u32 (&rows)[KT][4], const T16 *from, int strip, int column) {
  #pragma unroll
  for (int k = 0; k < KT; k++) ldmatrix4(rows[k], left_rows(from, XS, 16 * strip, column + 16 * k));
}

/* A lane's part of the dot products, over the unit's channels, of sums (as above) and rows. */
__device__ __forceinline__ void row_products(float (&out)[2], const float (&sum)[NT][4], const u32 (&rows)[KT][4]) {
  out[0] = out[1] = 0.0f;
  #pragma unroll
  for (int p = 0; p < NT; p++) {
    #pragma unroll
    for (int j = 0; j < 2; j++) {
      float low, high;
      unpack2(rows[p >> 1][2 * (p & 1) + j], low, high);
      out[j] += low * sum[p][2 * j] + high * sum[p][2 * j + 1];
    }
  }
}

/* Sums over the 4 lanes of rows g (low) and g + 8 (high): lanes with t = 0, 2 end with the first, t = 1, 3 with the second. */
__device__ __forceinline__ float sum_of_row(float low, float high) {
  bool odd = threadIdx.x & 1;
  float sum = (odd ? high : low) + __shfl_xor_sync(FULL_WARP, odd ? low : high, 1);
  return sum + __shfl_xor_sync(FULL_WARP, sum, 2);
}

/* What a warp holds of W: at most 4 blocks right of the first strip's diagonal and 2 of the second's. */
struct Weights {
  float v[6][8];

  /* Place in Memory.k of block i, and whether there is such a block in the chunk's strips. */
  __device__ __forceinline__ static bool place(int i, const int (&strip)[2], int strips, int &at) {
    int s = i < 4 ? strip[0] : strip[1], right = i < 4 ? i : i - 4;
    at = (s * (9 - s) / 2 + right) * 256 + (threadIdx.x & 31) * 4;
    return s + right < strips;
  }
};

/* Everything of one unit in two strips but what passes between chunks' ends. Writes dx, its rows count from the chunk's first. */
__device__ __forceinline__ void unit_step(Memory &m, Weights &w, int unit, int parity, const int (&strip)[2], const float *d,
    TDX *dx, int dx_stride, int count, int first_head, bool has_state, bool has_adjoint) {
  int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, head = unit / PARTS, column = unit * PW;
  const float *steps = m.steps + head * Q, *logs = m.logs + head * Q;
  float last = logs[Q - 1], u[2][NT][4], along[2][2];
  int strips = (count + 15) >> 4;
  float skip = D_PER_CHANNEL ? 0.0f : d[first_head + head];
  times_state(u, m.c, m.state + column * BS, strip, has_state);
  #pragma unroll
  for (int s = 0; s < 2; s++) {
    u32 rows[KT][4];
    load_rows(rows, m.dy, strip[s], column);
    row_products(along[s], u[s], rows);
  }
  times_state(u, m.b, m.adjoint + column * BS, strip, has_adjoint);
  #pragma unroll
  for (int s = 0; s < 2; s++) {
    if (strip[s] >= strips) continue;
    int row = 16 * strip[s] + g;
    float log[2], step[2], net[2] = {0.0f, 0.0f}, own[2] = {0.0f, 0.0f}, ahead[2];
    u32 rows[KT][4];
    load_rows(rows, m.x, strip[s], column);
    row_products(ahead, u[s], rows);
    if (PW % 16 == 8) rows[KT - 1][2] = rows[KT - 1][3] = 0u;
    #pragma unroll
    for (int j = 0; j < 2; j++) {
      log[j] = logs[row + 8 * j];
      step[j] = steps[row + 8 * j];
      float left = fast_exp2(last - log[j]);
      ahead[j] *= left;
      #pragma unroll
      for (int p = 0; p < NT; p++) u[s][p][2 * j] *= left, u[s][p][2 * j + 1] *= left;
    }
    #pragma unroll
    for (int right = 0; right < (s ? 2 : 4); right++) {
      int i0 = 16 * (strip[s] + right), at;
      if (!Weights::place(4 * s + right, strip, strips, at)) continue;
      float o[2][4] = {}, columns[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      #pragma unroll
      for (int k = 0; k < KT; k++) {
        u32 b[4];
        ldmatrix4(b, right_columns(m.dy, XS, i0, column + 16 * k));
        mma_pair(o[0], o[1], rows[k], b);
      }
      u32 a[4];
      #pragma unroll
      for (int half = 0; half < 2; half++) {
        float4 k4 = *(const float4 *)(m.k + at + 128 * half);
        float2 to = *(const float2 *)(logs + i0 + 8 * half + 2 * t);
        float k[4] = {k4.x, k4.y, k4.z, k4.w}, l[4];
        #pragma unroll
        for (int e = 0; e < 4; e++) {
          /* On the diagonal 8 x 8 pieces are below it, across it (as far as column 2 t + e is beyond row g) or above. */
          int j = e >> 1, distance = 2 * t + (e & 1) - g;
          if (right == 0 && half < j) {
            l[e] = 0.0f;
            continue;
          }
          bool crossed = right == 0 && half == j;
          float decay = fast_exp2((e & 1 ? to.y : to.x) - log[j]);
          if (crossed && distance < 0) decay = 0.0f;
          l[e] = decay * k[e];
          float product = l[e] * o[half][e];
          w.v[4 * s + right][4 * half + e] += decay * step[j] * o[half][e];
          if (crossed && distance == 0) own[j] += product, product = 0.0f;
          net[j] += product;
          columns[2 * half + (e & 1)] += step[j] * product;
        }
        a[2 * half] = pack2<T16>(l[0], l[1]);
        a[2 * half + 1] = pack2<T16>(l[2], l[3]);
      }
      #pragma unroll
      for (int p = 0; p < NT; p += 2) {
        if (p + 1 < NT) {
          u32 b[4];
          ldmatrix4_transposed(b, right_rows(m.dy, XS, i0, column + 8 * p));
          mma_pair(u[s][p], u[s][p + 1 < NT ? p + 1 : p], a, b);
        } else {
          u32 b[2];
          ldmatrix2_transposed(b, m.dy + (i0 + (lane & 15)) * XS + column + 8 * p);
          mma16816<T16>(u[s][p], a, b);
        }
      }
      /* Of the sums over the 16 rows, a lane ends with that of half g & 1, its column g >> 1 & 1. */
      bool second = g & 1, odd = g & 2;
      float low = (second ? columns[2] : columns[0]) + __shfl_xor_sync(FULL_WARP, second ? columns[0] : columns[2], 4);
      float high = (second ? columns[3] : columns[1]) + __shfl_xor_sync(FULL_WARP, second ? columns[1] : columns[3], 4);
      float sum = (odd ? high : low) + __shfl_xor_sync(FULL_WARP, odd ? low : high, 8);
      sum += __shfl_xor_sync(FULL_WARP, sum, 16);
      if (g < 4) m.across[parity][unit * Q + i0 + 8 * (g & 1) + 2 * t + (g >> 1)] += sum;
    }
    float direct = sum_of_row(net[0] + own[0] + ahead[0], net[1] + own[1] + ahead[1]);
    float passed = sum_of_row(fast_exp2(log[0]) * along[s][0] - step[0] * net[0], fast_exp2(log[1]) * along[s][1] - step[1] * net[1]);
    float later = sum_of_row(step[0] * ahead[0], step[1] * ahead[1]);
    if (t < 2) {
      int at = unit * Q + row + 8 * t;
      m.direct[at] = direct;
      m.along[at] = passed;
      m.ahead[at] = later;
    }
    load_rows(rows, m.dy, strip[s], column);
    #pragma unroll
    for (int j = 0; j < 2; j++) {
      bool live = row + 8 * j < count;
      u32 pairs[NT];
      #pragma unroll
      for (int p = 0; p < NT; p++) {
        int of_head = unit % PARTS * PW + 8 * p + 2 * t, channel = (first_head + head) * P + of_head;
        float low, high, skip_low = skip, skip_high = skip;
        if (D_PER_CHANNEL && of_head < P) skip_low = d[channel];
        if (D_PER_CHANNEL && of_head + 1 < P) skip_high = d[channel + 1];
        unpack2(rows[p >> 1][2 * (p & 1) + j], low, high);
        low = skip_low * low + step[j] * u[s][p][2 * j];
        high = skip_high * high + step[j] * u[s][p][2 * j + 1];
        TDX *to = dx + (i64)(row + 8 * j) * dx_stride + channel;
        if constexpr (DX_VECTORS) {
          pairs[p] = pack2<T16>(low, high);
        } else if constexpr (P % 2 == 0) {
          if (live && of_head < P) store_pair(to, low, high);
        } else {
          if (live && of_head < P) to[0] = from_float<TDX>(low);
          if (live && of_head + 1 < P) to[1] = from_float<TDX>(high);
        }
      }
      if constexpr (DX_VECTORS) {
        u32 tile[4];
        #pragma unroll
        for (int p = 0; p < 4; p++) tile[p] = p < NT ? pairs[p < NT ? p : 0] : 0u;
        gather_tile(tile);
        int of_head = unit % PARTS * PW + 8 * t;
        TDX *to = dx + (i64)(row + 8 * j) * dx_stride + (first_head + head) * P + of_head;
        if (live && t < NT && of_head < P) *(uint4 *)to = make_uint4(tile[0], tile[1], tile[2], tile[3]);
      }
    }
  }
}
`;
