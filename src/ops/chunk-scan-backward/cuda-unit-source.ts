/**
 * CUDA text of the chunked gradient's second kernel, first part: its shared memory, and the loads and products of a unit
 * of a chunk, all by one warp. Follows `CHUNKED_SOURCE`; `cuda-heads-source.ts` has the maths and the rest.
 *
 * A head has PARTS units of PW channels, a multiple of 8; behind a unit's channels, or before them where it begins within
 * 8 channels (SHIFTED), are zeros in x and dy and any finite numbers in the states.
 */

export const UNIT_SOURCE = String.raw`
#define BS (NP + 8)
#define XS (PW % 16 == 8 ? PW : PW + 8)
/* Tiles of 8 channels, and products with k = 16 over them. */
#define NT (PW / 8)
#define KT ((PW + 15) / 16)
/* Strips whose sums a lane has at a time. */
#define SP (PW <= 16 ? 4 : 2)
/* Channels of a unit, fewer in a head's last. */
#define UNIT_CHANNELS (PARTS == 1 ? P : PW)
#define SHIFTED (PARTS == 1 && P % 8 == 4)
/* Lanes that copy a row of x, or the 16-byte pieces of a column of a state: the next power of two. */
#define ROW_LANES (NT > 2 ? 4 : NT)
#define STATE_LANES (UNIT_CHANNELS > 16 ? 32 : UNIT_CHANNELS > 8 ? 16 : 8)

struct Mine {
  T16 x[Q * XS], dy[Q * XS];
  /* (NP / 8, PW, 8) each. With two buffers the state and its adjoint have one each, else the one after the other. */
  T16 states[BUFFERS][NP * PW];
  float steps[Q], logs[Q];
  /* What is left at a step of what was there at the end of each strip before it. */
  float left[3][Q];
  /* x.u; exp(a) dy S0 c - row sums of w; dt exp(a[Q] - a) x E b; column sums of w. */
  float direct[Q], along[Q], ahead[Q], across[Q];
};

struct Memory {
  T16 b[Q * BS], c[Q * BS];
  /* K of the 10 blocks of 16 x 16 on and above the diagonal, as lanes hold them. */
  float k[10 * 256];
  Mine mine[WARPS];
};

/* Where a unit's channels are. */
struct Unit {
  int channel, count, shift;
  __device__ __forceinline__ Unit(int head, int part) {
    channel = head * P + part * PW;
    count = PARTS == 1 ? P : min(PW, P - part * PW);
    shift = SHIFTED ? channel & 7 : 0;
  }
};

/* A unit's rows of a chunk to [Q][XS]; starts copies of 16 bytes where a unit begins at such or SHIFTED. */
template <typename T> __device__ __forceinline__ void load_unit(T16 *to, const T *from, int stride, i64 first, int count, const Unit &unit) {
  int lane = threadIdx.x & 31;
  from += first * stride + unit.channel - unit.shift;
  if constexpr (Same<T, T16>::value && (P % 8 == 0 || SHIFTED)) {
    int row = lane / ROW_LANES, v = lane % ROW_LANES * 8;
    const T *at = from + (i64)row * stride + v;
    bool inside = PARTS == 1 || v < unit.count;
    if (v < PW) {
      to += row * XS + v;
      #pragma unroll
      for (int i = 0; i < Q; i += 32 / ROW_LANES) {
        copy_async16(to + i * XS, at, inside && row + i < count);
        at += 32 / ROW_LANES * stride;
      }
    }
  } else {
    for (int i = lane; i < Q * PW; i += 32) {
      int row = i / PW, v = i % PW, p = v - unit.shift;
      to[row * XS + v] = from_float<T16>(row < count && p >= 0 && p < unit.count ? to_float(from[(i64)row * stride + v]) : 0.0f);
    }
  }
}

/* Zeros in place of the neighbour's 4 channels. */
template <typename T> __device__ __forceinline__ void clear_neighbour(T16 *to, const Unit &unit) {
  if constexpr (Same<T, T16>::value && SHIFTED) {
    for (int row = threadIdx.x & 31; row < Q; row += 32) *(uint2 *)(to + row * XS + (unit.shift ? 0 : P)) = make_uint2(0u, 0u);
  }
}

/* A unit's rows of a state (NP / 8, channels, 8). */
__device__ __forceinline__ void load_state(T16 *to, const T16 *from, int channels, const Unit &unit) {
  int lane = threadIdx.x & 31, n = lane / STATE_LANES, p = lane % STATE_LANES;
  if (p >= unit.count) return;
  from += (i64)(n * channels + unit.channel + p) * 8;
  to += (n * PW + p + unit.shift) * 8;
  #pragma unroll
  for (int i = 0; i < NP / 8; i += 32 / STATE_LANES) {
    if (NP / 8 % (32 / STATE_LANES) != 0 && i + n >= NP / 8) break;
    copy_async16(to + i * PW * 8, from, true);
    from += 32 / STATE_LANES * channels * 8;
  }
}

/* Brings them nearer. */
__device__ __forceinline__ void prefetch_state(const T16 *from, int channels, const Unit &unit) {
  for (int i = threadIdx.x & 31; i < NP / 8 * (STATE_LANES / 8); i += 32) {
    int n = i / (STATE_LANES / 8), p = i % (STATE_LANES / 8) * 8;
    if (p < unit.count) prefetch_l2(from + (n * channels + unit.channel + p) * 8);
  }
}

/* Sums (SP strips from the given one on, PW rows of a state): steps' rows (Q, NP) times the state's. */
__device__ __forceinline__ void times_state(float (&sum)[SP][NT][4], const T16 *steps, const T16 *state, int strip) {
  int lane = threadIdx.x & 31, half = lane >> 3 & 1;
  #pragma unroll
  for (int n = 0; n < NP; n += 16) {
    u32 b[NT][2];
    #pragma unroll
    for (int p = 0; p < NT; p += 2) {
      const T16 *at = state + ((n / 8 + half) * PW + 8 * p + (lane & 7)) * 8;
      if (p + 1 < NT) {
        u32 pair[4];
        ldmatrix4(pair, at + (lane >> 4) * 64);
        b[p][0] = pair[0], b[p][1] = pair[1];
        b[p + 1 < NT ? p + 1 : p][0] = pair[2], b[p + 1 < NT ? p + 1 : p][1] = pair[3];
      } else {
        ldmatrix2(b[p], at);
      }
    }
    #pragma unroll
    for (int s = 0; s < SP; s++) {
      u32 a[4];
      ldmatrix4(a, left_rows(steps, BS, 16 * (strip + s), n));
      #pragma unroll
      for (int p = 0; p < NT; p++) mma16816<T16>(sum[s][p], a, b[p]);
    }
  }
}

/* A lane's part of <E, S0> of a unit; S0 is in shared memory, or with one buffer in device memory (first: its first channel). */
__device__ __forceinline__ float inner_product(const T16 *state, const T16 *first, int channels, const T16 *adjoint, const Unit &unit) {
  int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  float sum = 0.0f;
  #pragma unroll
  for (int p = 0; p < NT; p += 2) {
    /* The diagonals of a product of 16 rows with as many. */
    float d[2][4] = {};
    int row[2] = {8 * p + g, 8 * p + 8 + g};
    const T16 *low = first + min(row[0], unit.count - 1) * 8 + 2 * t, *high = first + min(row[1], unit.count - 1) * 8 + 2 * t;
    #pragma unroll 4
    for (int n = 0; n < NP / 8; n += 2) {
      u32 a[4], b[4];
      if constexpr (BUFFERS == 2) {
        ldmatrix4(a, state + ((n + (lane >> 4)) * PW + 8 * p + (lane & 15)) * 8);
      } else {
        #pragma unroll
        for (int i = 0; i < 4; i++) a[i] = *(const u32 *)((i & 1 ? high : low) + (n + (i >> 1)) * channels * 8);
      }
      ldmatrix4(b, adjoint + ((n + (lane >> 3 & 1)) * PW + 8 * p + (lane >> 4) * 8 + (lane & 7)) * 8);
      mma_pair(d[0], d[1], a, b);
    }
    #pragma unroll
    for (int j = 0; j < 2; j++) {
      bool live = row[j] >= unit.shift && row[j] < unit.shift + unit.count && g >> 1 == t;
      if (p + j < NT && live) sum += g & 1 ? d[j][2 * j + 1] : d[j][2 * j];
    }
  }
  return sum;
}

/* Rows of x or dy of a strip, as the left operand: tile p of the channels is in registers 2 (p & 1) + j of p >> 1. */
__device__ __forceinline__ void load_rows(u32 (&rows)[KT][4], const T16 *from, int strip) {
  #pragma unroll
  for (int k = 0; k < KT; k++) ldmatrix4(rows[k], left_rows(from, XS, 16 * strip, 16 * k));
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

/* A strip's dx, of which values are at a lane's places (NT tiles) of rows g and g + 8; to: the first row's first column. */
__device__ __forceinline__ void store_dx(TDX *to, int stride, const float (&values)[NT][4], int rows, const Unit &unit) {
  int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  #pragma unroll
  for (int j = 0; j < 2; j++) {
    bool live = g + 8 * j < rows;
    TDX *at = to + (g + 8 * j) * stride;
    if constexpr (Same<TDX, T16>::value && P % 8 == 0) {
      u32 tile[4];
      #pragma unroll
      for (int p = 0; p < 4; p++) tile[p] = p < NT ? pack2<T16>(values[p < NT ? p : 0][2 * j], values[p < NT ? p : 0][2 * j + 1]) : 0u;
      gather_tile(tile);
      if (live && 8 * t < unit.count) *(uint4 *)(at + 8 * t) = make_uint4(tile[0], tile[1], tile[2], tile[3]);
    } else if constexpr (Same<TDX, T16>::value && SHIFTED) {
      /* Even lanes take 4 columns of the first tile of two, odd lanes of the second. */
      #pragma unroll
      for (int p = 0; p < NT; p += 2) {
        bool odd = t & 1;
        u32 low = pack2<T16>(values[p][2 * j], values[p][2 * j + 1]);
        u32 high = p + 1 < NT ? pack2<T16>(values[p + 1 < NT ? p + 1 : p][2 * j], values[p + 1 < NT ? p + 1 : p][2 * j + 1]) : 0u;
        u32 other = __shfl_xor_sync(FULL_WARP, odd ? low : high, 1);
        int column = 8 * (p + odd) + 4 * (t >> 1) - unit.shift;
        if (live && column >= 0 && column < P) *(uint2 *)(at + column) = odd ? make_uint2(other, high) : make_uint2(low, other);
      }
    } else {
      #pragma unroll
      for (int p = 0; p < NT; p++) {
        int column = 8 * p + 2 * t - unit.shift;
        if (live && column >= 0 && column < unit.count) at[column] = from_float<TDX>(values[p][2 * j]);
        if (live && column + 1 >= 0 && column + 1 < unit.count) at[column + 1] = from_float<TDX>(values[p][2 * j + 1]);
      }
    }
  }
}

/* The first block of a strip's in K and W. */
__device__ __forceinline__ constexpr int first_block(int strip) { return strip * (9 - strip) / 2; }

/* What a lane adds up of L K O over a strip's rows g and g + 8: above the diagonal, and on it. */
struct RowSums {
  float net[2] = {0.0f, 0.0f}, own[2] = {0.0f, 0.0f};
};

/* O of a strip and the 16 steps from i0 on. */
__device__ __forceinline__ void outer_products(float (&o)[2][4], const u32 (&rows)[KT][4], const T16 *dy, int i0) {
  #pragma unroll
  for (int e = 0; e < 4; e++) o[0][e] = o[1][e] = 0.0f;
  #pragma unroll
  for (int k = 0; k < KT; k++) {
    u32 b[4];
    ldmatrix4(b, right_columns(dy, XS, i0, 16 * k));
    mma_pair(o[0], o[1], rows[k], b);
  }
}

/* u += a strip's block (16 x 16, as sums are) times dy from step i0 on. */
__device__ __forceinline__ void add_product(float (&u)[NT][4], const float (&block)[2][4], const T16 *dy, int i0) {
  u32 a[4];
  #pragma unroll
  for (int i = 0; i < 4; i++) a[i] = pack2<T16>(block[i >> 1][2 * (i & 1)], block[i >> 1][2 * (i & 1) + 1]);
  #pragma unroll
  for (int p = 0; p < NT; p += 2) {
    if (p + 1 < NT) {
      u32 b[4];
      ldmatrix4_transposed(b, right_rows(dy, XS, i0, 8 * p));
      mma_pair(u[p], u[p + 1 < NT ? p + 1 : p], a, b);
    } else {
      u32 b[2];
      ldmatrix2_transposed(b, dy + (i0 + (threadIdx.x & 15)) * XS + 8 * p);
      mma16816<T16>(u[p], a, b);
    }
  }
}

/*
 * A block of 16 x 16 above the diagonal, where decays are products: of what is left at its columns of the strip's end and
 * at that of its rows, of which factors are the step's multiples. Adds to W, to columns' sums of dt L K O, and without
 * the rows' part to the rows' sums and u.
 */
__device__ __forceinline__ void later_block(const T16 *dy, const float *left, const float *k_block, float (&w)[8], float (&columns)[4],
    RowSums &sums, float (&u)[NT][4], const u32 (&rows)[KT][4], const float (&factors)[2], int i0) {
  int lane = threadIdx.x & 31, t = lane & 3;
  float o[2][4], l[2][4];
  outer_products(o, rows, dy, i0);
  #pragma unroll
  for (int half = 0; half < 2; half++) {
    float4 k4 = *(const float4 *)(k_block + lane * 4 + 128 * half);
    float2 to = *(const float2 *)(left + i0 + 8 * half + 2 * t);
    float k[4] = {k4.x, k4.y, k4.z, k4.w};
    #pragma unroll
    for (int e = 0; e < 4; e++) {
      float decay = e & 1 ? to.y : to.x, product = factors[e >> 1] * o[half][e];
      l[half][e] = decay * k[e];
      w[4 * half + e] += decay * product;
      sums.net[e >> 1] += l[half][e] * o[half][e];
      columns[2 * half + (e & 1)] += l[half][e] * product;
    }
  }
  add_product(u, l, dy, i0);
}

/* A block of 16 x 16 on the diagonal likewise; adds the diagonal of O to skip. */
__device__ __forceinline__ void own_block(const T16 *dy, const float *logs, const float *k_block, float (&w)[8], float (&columns)[4],
    RowSums &sums, float (&u)[NT][4], float &skip, const u32 (&rows)[KT][4], const float (&log)[2], const float (&step)[2], int i0) {
  int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  float o[2][4], l[2][4];
  outer_products(o, rows, dy, i0);
  #pragma unroll
  for (int half = 0; half < 2; half++) {
    float4 k4 = *(const float4 *)(k_block + lane * 4 + 128 * half);
    float2 to = *(const float2 *)(logs + i0 + 8 * half + 2 * t);
    float k[4] = {k4.x, k4.y, k4.z, k4.w};
    #pragma unroll
    for (int e = 0; e < 4; e++) {
      /* 8 x 8 pieces are below the diagonal, across it (as far as column 2 t + e is beyond row g) or above. */
      int j = e >> 1, distance = 2 * t + (e & 1) - g;
      if (half < j) {
        l[half][e] = 0.0f;
        continue;
      }
      float decay = fast_exp2((e & 1 ? to.y : to.x) - log[j]);
      if (half == j && distance < 0) decay = 0.0f;
      l[half][e] = decay * k[e];
      float product = l[half][e] * o[half][e];
      w[4 * half + e] += decay * step[j] * o[half][e];
      if (half == j && distance == 0) sums.own[j] += product, skip += o[half][e], product = 0.0f;
      sums.net[j] += product;
      columns[2 * half + (e & 1)] += step[j] * product;
    }
  }
  add_product(u, l, dy, i0);
}
`;
