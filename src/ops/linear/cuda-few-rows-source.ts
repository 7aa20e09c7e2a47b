/**
 * CUDA text of products with few rows: y[row, column] = x[row] . weight[weight row, :K] + bias, read once from memory.
 *
 * A block first brings its ROWS rows of x into shared memory as float32, in one of several ways (`STAGE`), then its
 * warps walk over groups of R weight rows: lanes split K, each holding U 16-byte vectors of every row of the group, and
 * load the next vectors before they multiply the present ones. The first vectors are asked for before x is staged, so
 * the norms of the fused stages hide behind the weights' way from memory.
 *
 * Shared memory: [ROWS][VEC / 4][vectors][4] floats. Quad q of a row of x lies in part q % (VEC / 4) of vector
 * q / (VEC / 4), so that neighbouring lanes read neighbouring quads. `vectors` is padded with zeros to whole chunks.
 *
 * Defines: X, W, Y element types of x, weight and y; ROWS rows of x per block; R, U as above; WARPS; MIN_BLOCKS resident
 * blocks; GROUPED int8 scales per group instead of per row; SEGMENTS, SEGMENT_PARAMETERS and SEGMENT_TABLE (start, count,
 * column of each segment); STAGE:
 *
 * - 0: x is copied.
 * - 1: x or (RESIDUAL) x + residual is normalised, with CENTER as a layer norm; the first block writes the sum.
 * - 2: x is normalised by its root mean square, then with GATE multiplied by silu(z).
 *
 * FOLD: the norm is without CENTER and bias, and its scale is left to the sums, so that x is passed over only once.
 *
 * With WINDOW, one more block moves the convolution's windows of B and C on by one step (see ops/decode).
 */

export const FEW_ROWS_SOURCE = String.raw`
#define VEC (16 / (int)sizeof(W))
#define PARTS (VEC / 4)
typedef W Element;
#define THREADS (32 * WARPS)
#define BATCH (ROWS <= 2 ? 3 : ROWS <= 4 ? 2 : 1)
#define VALUES (ROWS * R <= 1 ? 1 : ROWS * R <= 2 ? 2 : ROWS * R <= 4 ? 4 : ROWS * R <= 8 ? 8 : ROWS * R <= 16 ? 16 : 32)

/* Four elements of part q of a 16-byte vector as floats; the last argument only names the element's type. */
template <typename T> __device__ __forceinline__ void quad_of(float (&out)[4], const uint4 &v, int q, T) {
  union { uint4 v; T e[VEC]; } u; u.v = v;
  #pragma unroll
  for (int j = 0; j < 4; j++) out[j] = to_float(u.e[4 * q + j]);
}
/* Bytes become the low bits of 2^23 + 128 + value: conversions from integers run at a fourth of the speed. */
__device__ __forceinline__ void quad_of(float (&out)[4], const uint4 &v, int q, signed char) {
  u32 word = (q == 0 ? v.x : q == 1 ? v.y : q == 2 ? v.z : v.w) ^ 0x80808080u;
  #pragma unroll
  for (int j = 0; j < 4; j++) {
    union { u32 bits; float value; } u; u.bits = ((word >> (8 * j)) & 0xffu) | 0x4b000000u;
    out[j] = u.value - 8388736.0f;
  }
}

__device__ __forceinline__ int low(int a, int b) { return a < b ? a : b; }

/* Where quad q of a staged row lies, in float4. */
__device__ __forceinline__ int quad_place(int q, int vectors) { return (q % PARTS) * vectors + q / PARTS; }

/* Four columns of a row from quad q on, zeros from column k on. */
template <typename T> __device__ __forceinline__ float4 masked_quad(const T *row, int q, int k) {
  float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  if (4 * q < k) load_row<4>(v, row + 4 * q);
  return make_float4(v[0], 4 * q + 1 < k ? v[1] : 0.0f, 4 * q + 2 < k ? v[2] : 0.0f, 4 * q + 3 < k ? v[3] : 0.0f);
}

/* The same for a parameter vector, which ends at column k. */
__device__ __forceinline__ float4 parameter_quad(const float *p, int q, int k) {
  int i = 4 * q;
  return make_float4(i < k ? p[i] : 0.0f, i + 1 < k ? p[i + 1] : 0.0f, i + 2 < k ? p[i + 2] : 0.0f, i + 3 < k ? p[i + 3] : 0.0f);
}

/* Sums ROWS numbers over the block; cells: WARPS * ROWS floats. */
__device__ __forceinline__ void sum_rows(float (&part)[ROWS], float *cells) {
  #pragma unroll
  for (int m = 0; m < ROWS; m++) {
    float sum = warp_sum(part[m]);
    if ((threadIdx.x & 31) == 0) cells[(threadIdx.x >> 5) * ROWS + m] = sum;
  }
  __syncthreads();
  #pragma unroll
  for (int m = 0; m < ROWS; m++) {
    part[m] = 0.0f;
    for (int w = 0; w < WARPS; w++) part[m] += cells[w * ROWS + m];
  }
}

/* Segment of an output column: the weight row that it is, and the last row of its segment. */
__device__ __forceinline__ void locate(const int (&table)[3 * SEGMENTS], int column, int &row, int &last) {
  row = 0;
  last = 0;
  #pragma unroll
  for (int s = 0; s < SEGMENTS; s++) {
    if (column >= table[3 * s + 2]) {
      row = table[3 * s] + column - table[3 * s + 2];
      last = table[3 * s] + table[3 * s + 1] - 1;
    }
  }
}

__device__ __forceinline__ void load_chunk(uint4 (&v)[R][U], const W *weight, i64 stride, int row, int last, int vector, int vectors) {
  #pragma unroll
  for (int u = 0; u < U; u++) {
    #pragma unroll
    for (int r = 0; r < R; r++) {
      v[r][u] = make_uint4(0u, 0u, 0u, 0u);
      if (vector + 32 * u < vectors) v[r][u] = load_stream16(weight + low(row + r, last) * stride + (i64)(vector + 32 * u) * VEC);
    }
  }
}

/* Halves the numbers that a lane holds: lanes with bit MASK keep the upper N of 2 N, the others the lower. */
template <int N, int MASK> __device__ __forceinline__ void halve(float (&a)[VALUES], int lane) {
  if constexpr (N > 0) {
    bool upper = (lane & MASK) != 0;
    #pragma unroll
    for (int i = 0; i < N; i++) {
      float sent = upper ? a[i] : a[i + N];
      float kept = upper ? a[i + N] : a[i];
      a[i] = kept + __shfl_xor_sync(FULL_WARP, sent, MASK);
    }
    halve<N / 2, MASK / 2>(a, lane);
  }
}
/* Adds up each of VALUES numbers over the warp; lane l gets number l / (32 / VALUES). */
__device__ __forceinline__ float sum_values(float (&a)[VALUES], int lane) {
  halve<VALUES / 2, 16>(a, lane);
  float sum = a[0];
  #pragma unroll
  for (int mask = 16 / VALUES; mask > 0; mask >>= 1) sum += __shfl_xor_sync(FULL_WARP, sum, mask);
  return sum;
}

/* x: (rows, k), y: (rows, columns); weight: rows of w_stride elements; grid: (groups of R columns, tiles of ROWS rows). */
extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) few_rows(
  const X *__restrict__ x, int x_stride, int rows, int k, const W *weight, int w_stride, const float *scales, int scale_groups,
  int group_size, const float *bias, Y *y, int y_stride, int columns SEGMENT_PARAMETERS
#if STAGE == 1
  , const RESIDUAL_TYPE *residual, int residual_stride, SUM_TYPE *sum, int sum_stride
#endif
#if STAGE == 2
  , const Z *z, int z_stride
#endif
#if STAGE > 0
  , const float *norm_weight, const float *norm_bias, float eps
#endif
#if WINDOW
  , const I *bc, int bc_stride, int b_column, int c_column, int b_start, int c_start, int d_state, int taps, int channels,
  char **slot_table, int offset, const int *slots, const int *lengths
#endif
) {
  extern __shared__ float4 staged[];
  const int table[3 * SEGMENTS] = {SEGMENT_TABLE};
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int vectors = (k + VEC - 1) / VEC;
  const int chunks = (vectors + 32 * U - 1) / (32 * U);
  const int places = chunks * 32 * U;
  const int groups = (columns + R - 1) / R;
  const int step = (gridDim.x - WINDOW) * WARPS;
  const int first_row = blockIdx.y * ROWS;
  int group = blockIdx.x * WARPS + warp;

  let_next_kernel_start();
  uint4 now[R][U], next[R][U];
  int row, last;
  locate(table, group * R, row, last);
  if (group < groups) load_chunk(now, weight, w_stride, row, last, lane, vectors);

  wait_for_kernel_before();
#if WINDOW
  if (blockIdx.x == gridDim.x - 1) {
    /* The windows of B and C, which all blocks of the step before have read: oldest out, this step's input in. */
    if (blockIdx.y > 0) return;
    for (int i = threadIdx.x; i < rows * 2 * d_state; i += THREADS) {
      int b = i / (2 * d_state), n = i % (2 * d_state);
      if (lengths && lengths[b] < 1) continue;
      int column = n < d_state ? b_column + n : c_column + n - d_state;
      int channel = n < d_state ? b_start + n : c_start + n - d_state;
      float input = to_float(bc[(i64)b * bc_stride + column]);
      float *window = (float *)(slot_table[slots[b]] + offset) + channel;
      for (int t = 0; t + 2 < taps; t++) window[(i64)t * channels] = window[(i64)(t + 1) * channels];
      window[(i64)(taps - 2) * channels] = input;
    }
    return;
  }
#endif

  /* Staging, BATCH quads of every row at a time. Rows that are not there repeat the last one. */
  const int quads = places * PARTS;
#if STAGE > 0
  __shared__ float cells[2 * WARPS * ROWS];
  float part[ROWS];
  #pragma unroll
  for (int m = 0; m < ROWS; m++) part[m] = 0.0f;
#endif
  for (int first = threadIdx.x; first < quads; first += BATCH * THREADS) {
    float4 v[BATCH][ROWS];
#if FOLD
    float4 w[BATCH];
#endif
#if STAGE == 2 && GATE
    float4 g[BATCH][ROWS];
#endif
    #pragma unroll
    for (int i = 0; i < BATCH; i++) {
      const int q = first + i * THREADS;
      #pragma unroll
      for (int m = 0; m < ROWS; m++) {
        const i64 from = low(first_row + m, rows - 1);
        v[i][m] = masked_quad(x + from * x_stride, q, k);
#if STAGE == 1 && RESIDUAL
        float4 r = masked_quad(residual + from * residual_stride, q, k);
        v[i][m].x += r.x; v[i][m].y += r.y; v[i][m].z += r.z; v[i][m].w += r.w;
#endif
#if STAGE == 2 && GATE
        g[i][m] = masked_quad(z + from * z_stride, q, k);
#endif
      }
#if FOLD
      w[i] = parameter_quad(norm_weight, q, k);
#endif
    }
    #pragma unroll
    for (int i = 0; i < BATCH; i++) {
      const int q = first + i * THREADS;
      if (q >= quads) continue;
      #pragma unroll
      for (int m = 0; m < ROWS; m++) {
        float4 s = v[i][m];
#if STAGE == 1 && RESIDUAL
        if (blockIdx.x == 0 && first_row + m < rows && 4 * q < ((k + 15) & ~15)) {
          float out[4] = {s.x, s.y, s.z, s.w};
          store_row<4>(sum + (i64)(first_row + m) * sum_stride + 4 * q, out);
        }
#endif
#if STAGE == 1 && CENTER
        part[m] += (s.x + s.y) + (s.z + s.w);
#elif STAGE > 0
        part[m] += (s.x * s.x + s.y * s.y) + (s.z * s.z + s.w * s.w);
#endif
#if FOLD
        s.x *= w[i].x; s.y *= w[i].y; s.z *= w[i].z; s.w *= w[i].w;
#endif
#if STAGE == 2 && GATE
        s.x *= silu(g[i][m].x); s.y *= silu(g[i][m].y); s.z *= silu(g[i][m].z); s.w *= silu(g[i][m].w);
#endif
        staged[m * quads + quad_place(q, places)] = s;
      }
    }
  }
#if STAGE > 0
  sum_rows(part, cells);
#if STAGE == 1 && CENTER
  float mean[ROWS];
  #pragma unroll
  for (int m = 0; m < ROWS; m++) { mean[m] = part[m] / (float)k; part[m] = 0.0f; }
  for (int q = threadIdx.x; q < quads; q += THREADS) {
    #pragma unroll
    for (int m = 0; m < ROWS; m++) {
      float4 v = staged[m * quads + quad_place(q, places)];
      float a = 4 * q < k ? v.x - mean[m] : 0.0f, b = 4 * q + 1 < k ? v.y - mean[m] : 0.0f;
      float c = 4 * q + 2 < k ? v.z - mean[m] : 0.0f, d = 4 * q + 3 < k ? v.w - mean[m] : 0.0f;
      part[m] += (a * a + b * b) + (c * c + d * d);
    }
  }
  sum_rows(part, cells + WARPS * ROWS);
#endif
  #pragma unroll
  for (int m = 0; m < ROWS; m++) part[m] = 1.0f / sqrtf(part[m] / (float)k + eps);
#if !FOLD
  for (int q = threadIdx.x; q < quads; q += THREADS) {
    /* Zero from column k on, where the weight and the bias are. */
    float4 w = parameter_quad(norm_weight, q, k);
    float4 b = norm_bias ? parameter_quad(norm_bias, q, k) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    #pragma unroll
    for (int m = 0; m < ROWS; m++) {
      float4 v = staged[m * quads + quad_place(q, places)];
#if CENTER
      v.x -= mean[m]; v.y -= mean[m]; v.z -= mean[m]; v.w -= mean[m];
#endif
      v.x = v.x * part[m] * w.x + b.x;
      v.y = v.y * part[m] * w.y + b.y;
      v.z = v.z * part[m] * w.z + b.z;
      v.w = v.w * part[m] * w.w + b.w;
      staged[m * quads + quad_place(q, places)] = v;
    }
  }
#endif
#endif
#if !FOLD
  __syncthreads();
#endif

  /* The number that the lane will hold once the warp's sums are added up. */
  const int value = lane / (32 / VALUES);
  const int my_row = value / R, my_column = value % R;
  const bool writes = lane % (32 / VALUES) == 0 && value < ROWS * R && first_row + my_row < rows;
  float factor = 1.0f;
#if FOLD
  #pragma unroll
  for (int m = 0; m < ROWS; m++) factor = m == my_row ? part[m] : factor;
#endif
  for (; group < groups; group += step) {
    const int from = low(row + my_column, last);
    const float addend = bias ? bias[from] : 0.0f;
#if SCALED && !GROUPED
    const float scale_of_row = scales[from];
#endif
    float sums[VALUES];
    #pragma unroll
    for (int i = 0; i < VALUES; i++) sums[i] = 0.0f;
    int next_row = row, next_last = last;
    for (int chunk = 0; chunk < chunks; chunk++) {
      const int vector = chunk * 32 * U + lane;
      if (chunk + 1 < chunks) load_chunk(next, weight, w_stride, row, last, vector + 32 * U, vectors);
      else if (group + step < groups) {
        locate(table, (group + step) * R, next_row, next_last);
        load_chunk(next, weight, w_stride, next_row, next_last, lane, vectors);
      }
      #pragma unroll
      for (int u = 0; u < U; u++) {
#if GROUPED
        float scale[R];
        #pragma unroll
        for (int r = 0; r < R; r++) {
          int at = low(vector + 32 * u, vectors - 1) * VEC / group_size;
          scale[r] = scales[(i64)low(row + r, last) * scale_groups + at];
        }
#endif
        #pragma unroll
        for (int q = 0; q < PARTS; q++) {
          float w[R][4];
          #pragma unroll
          for (int r = 0; r < R; r++) {
            quad_of(w[r], now[r][u], q, Element());
#if GROUPED
            for (int j = 0; j < 4; j++) w[r][j] *= scale[r];
#endif
          }
          #pragma unroll
          for (int m = 0; m < ROWS; m++) {
            float4 v = staged[m * quads + q * places + vector + 32 * u];
            #pragma unroll
            for (int r = 0; r < R; r++) {
              float &sum = sums[m * R + r];
              sum += w[r][0] * v.x;
              sum += w[r][1] * v.y;
              sum += w[r][2] * v.z;
              sum += w[r][3] * v.w;
            }
          }
        }
      }
      #pragma unroll
      for (int r = 0; r < R; r++) {
        #pragma unroll
        for (int u = 0; u < U; u++) now[r][u] = next[r][u];
      }
    }
    float result = sum_values(sums, lane) * factor;
#if SCALED && !GROUPED
    result *= scale_of_row;
#endif
    if (writes && group * R + my_column < columns) {
      y[(i64)(first_row + my_row) * y_stride + group * R + my_column] = from_float<Y>(row + my_column <= last ? result + addend : 0.0f);
    }
    row = next_row;
    last = next_last;
  }
}
`;

/**
 * int8 rows as 16-bit floats or float32: row i of `to` ([rows][w_stride], 16-byte vectors of 16 columns) is the weight's
 * row that output column i is, scaled; rows that pad a segment are zero. Grid: 256 threads over rows * w_stride / 16.
 */
export const DEQUANTISE_SOURCE = String.raw`
extern "C" __global__ void __launch_bounds__(256) dequantise(
  const signed char *weight, int w_stride, const float *scales, int scale_groups, int group_size, T *to, int rows SEGMENT_PARAMETERS
) {
  const int table[3 * SEGMENTS] = {SEGMENT_TABLE};
  const int vectors = w_stride / 16;
  i64 i = (i64)blockIdx.x * 256 + threadIdx.x;
  if (i >= (i64)rows * vectors) return;
  int column = (int)(i / vectors), vector = (int)(i % vectors);
  int row = 0, last = 0;
  #pragma unroll
  for (int s = 0; s < SEGMENTS; s++) {
    if (column >= table[3 * s + 2]) {
      row = table[3 * s] + column - table[3 * s + 2];
      last = table[3 * s] + table[3 * s + 1] - 1;
    }
  }
  float out[16];
  if (row > last) {
    for (int j = 0; j < 16; j++) out[j] = 0.0f;
  } else {
    union { uint4 v; signed char e[16]; } u;
    u.v = load_stream16(weight + (i64)row * w_stride + 16 * vector);
    float scale = scales[(i64)row * scale_groups + 16 * vector / group_size];
    #pragma unroll
    for (int j = 0; j < 16; j++) out[j] = (float)u.e[j] * scale;
  }
  store_row<16>(to + (i64)column * w_stride + 16 * vector, out);
}
`;
