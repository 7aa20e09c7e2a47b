/**
 * CUDA text of products of int8 weights with 9 to 64 rows of 16-bit activations, on tensor cores: the weights are read
 * once, as int8, and become 16-bit floats (exactly) in registers.
 *
 * A tile is 16 weight rows, the rows of an mma's left side; the rows of x are the columns of its right side, 8 at a time.
 * The order of k inside an mma is free as long as both sides agree: lane (g, t) = (lane / 4, lane % 4) holds 16 bytes of
 * weight rows g and g + 8, and takes four of them, and the same four columns of x rows g, g + 8, ..., for each of the
 * four mma steps of a chunk of 64.
 *
 * Shared memory: x as [8 NT][pitch] 16-bit elements, zeros from column k on, pitch = 64-column chunks + 8, which keeps
 * 16-byte reads of neighbouring rows in different banks; with SPLIT > 1, SPLIT warps share a tile's k and add up there.
 *
 * Defines: X, Y types of x and y; T bf16 or f16; NT groups of 8 rows of x; SPLIT 1, 2, 4 or 8; GROUPED; SEGMENTS and so
 * on as in cuda-few-rows-source.ts.
 */
export const INT8_PRODUCT_SOURCE = String.raw`
#define THREADS 256
#define ROWS (8 * NT)
#define U 2
#define TILES (8 / SPLIT)

/* Bytes 4 s .. 4 s + 3 as floats: they become the low bits of 2^23 + 128 + value. */
__device__ __forceinline__ void quad_of(float (&out)[4], const uint4 &v, int s) {
  u32 word = (s == 0 ? v.x : s == 1 ? v.y : s == 2 ? v.z : v.w) ^ 0x80808080u;
  #pragma unroll
  for (int j = 0; j < 4; j++) {
    union { u32 bits; float value; } u; u.bits = ((word >> (8 * j)) & 0xffu) | 0x4b000000u;
    out[j] = u.value - 8388736.0f;
  }
}

__device__ __forceinline__ int low(int a, int b) { return a < b ? a : b; }

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

/* x: (rows, k), y: (rows, columns), weight: int8 rows of w_stride. Grid: (groups of TILES tiles, groups of ROWS rows). */
extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) int8_product(
  const X *x, int x_stride, int rows, int k, const signed char *weight, int w_stride, const float *scales, int scale_groups,
  int group_size, const float *bias, Y *y, int y_stride, int columns SEGMENT_PARAMETERS
) {
  extern __shared__ uint4 memory[];
  T *staged = (T *)memory;
  float *partial = (float *)memory;
  const int table[3 * SEGMENTS] = {SEGMENT_TABLE};
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int part = warp % SPLIT;
  const int vectors = (k + 15) / 16;
  const int chunks = (k + 63) / 64;
  const int pitch = 64 * chunks + 8;
  const int first_row = blockIdx.y * ROWS;
  const int tiles = (columns + 15) / 16;
  const int step = gridDim.x * TILES;

  uint4 now[U][2], next[U][2];
  int upper = 0, lower = 0, last = 0;
  /* Bytes of both weight rows for U of the warp's chunks. */
  auto load = [&](uint4 (&v)[U][2], int chunk) {
    #pragma unroll
    for (int u = 0; u < U; u++) {
      const int vector = 4 * (chunk + u * SPLIT) + t;
      v[u][0] = v[u][1] = make_uint4(0u, 0u, 0u, 0u);
      if (vector < vectors) {
        v[u][0] = load_stream16(weight + (i64)low(upper, last) * w_stride + 16 * vector);
        v[u][1] = load_stream16(weight + (i64)low(lower, last) * w_stride + 16 * vector);
      }
    }
  };
  let_next_kernel_start();
  int tile = blockIdx.x * TILES + warp / SPLIT;
  if (tile < tiles) {
    locate(table, 16 * tile + g, upper, last);
    lower = upper + 8;
    load(now, part);
  }
  wait_for_kernel_before();

  /* Tiles of a block are walked together when its warps share them. */
  for (int base = blockIdx.x * TILES; base < tiles; base += step, tile += step) {
    if (base == (int)blockIdx.x * TILES || SPLIT > 1) {
      for (int i = threadIdx.x; i < ROWS * 8 * chunks; i += THREADS) {
        const int m = i / (8 * chunks), column = i % (8 * chunks) * 8;
        float v[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        if (first_row + m < rows && column < k) load_row<8>(v, x + (i64)(first_row + m) * x_stride + column);
        #pragma unroll
        for (int j = 0; j < 8; j++) v[j] = column + j < k ? v[j] : 0.0f;
        store_row<8>(staged + m * pitch + column, v);
      }
      __syncthreads();
    }
    const bool real = tile < tiles;
    float d[NT][4];
    #pragma unroll
    for (int n = 0; n < NT; n++) d[n][0] = d[n][1] = d[n][2] = d[n][3] = 0.0f;
    const int upper_now = upper, lower_now = lower, last_now = last;
    for (int chunk = part; chunk < chunks; chunk += U * SPLIT) {
      if (chunk + U * SPLIT < chunks) {
        load(next, chunk + U * SPLIT);
      } else if (tile + step < tiles) {
        locate(table, 16 * (tile + step) + g, upper, last);
        lower = upper + 8;
        load(next, part);
      }
      #pragma unroll
      for (int u = 0; u < U; u++) {
        const int at = chunk + u * SPLIT;
        if (at >= chunks) break;
        u32 a[4][4];
#if GROUPED
        const int group = 16 * low(4 * at + t, vectors - 1) / group_size;
        const float scale0 = scales[(i64)low(upper_now, last_now) * scale_groups + group];
        const float scale1 = scales[(i64)low(lower_now, last_now) * scale_groups + group];
#endif
        #pragma unroll
        for (int s = 0; s < 4; s++) {
          float p[4], q[4];
          quad_of(p, now[u][0], s);
          quad_of(q, now[u][1], s);
#if GROUPED
          for (int j = 0; j < 4; j++) { p[j] *= scale0; q[j] *= scale1; }
#endif
          a[s][0] = pack2<T>(p[0], p[1]);
          a[s][1] = pack2<T>(q[0], q[1]);
          a[s][2] = pack2<T>(p[2], p[3]);
          a[s][3] = pack2<T>(q[2], q[3]);
        }
        #pragma unroll
        for (int n = 0; n < NT; n++) {
          const uint4 *from = (const uint4 *)(staged + (8 * n + g) * pitch + 64 * at + 16 * t);
          const uint4 first = from[0], second = from[1];
          u32 b[4][2] = {{first.x, first.y}, {first.z, first.w}, {second.x, second.y}, {second.z, second.w}};
          #pragma unroll
          for (int s = 0; s < 4; s++) mma16816<T>(d[n], a[s], b[s]);
        }
      }
      #pragma unroll
      for (int u = 0; u < U; u++) { now[u][0] = next[u][0]; now[u][1] = next[u][1]; }
    }
#if SPLIT > 1
    /* [warp][row of x][16] partial sums in place of x, added up in the order of the parts. */
    __syncthreads();
    #pragma unroll
    for (int n = 0; n < NT; n++) {
      float *to = partial + (warp * ROWS + 8 * n + 2 * t) * 16 + g;
      to[0] = d[n][0];
      to[16] = d[n][1];
      to[8] = d[n][2];
      to[24] = d[n][3];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILES * ROWS * 16; i += THREADS) {
      const int which = i / (ROWS * 16), m = i / 16 % ROWS, column = 16 * (base + which) + i % 16;
      float sum = 0.0f;
      #pragma unroll
      for (int s = 0; s < SPLIT; s++) sum += partial[((which * SPLIT + s) * ROWS + m) * 16 + i % 16];
      if (first_row + m >= rows || column >= columns) continue;
      int row, end;
      locate(table, column, row, end);
#if !GROUPED
      sum *= scales[low(row, end)];
#endif
      if (bias) sum += bias[low(row, end)];
      y[(i64)(first_row + m) * y_stride + column] = from_float<Y>(row <= end ? sum : 0.0f);
    }
    __syncthreads();
#else
    if (real) {
      const int top = low(upper_now, last_now), bottom = low(lower_now, last_now);
      const float addend0 = bias ? bias[top] : 0.0f, addend1 = bias ? bias[bottom] : 0.0f;
#if GROUPED
      const float scale0 = 1.0f, scale1 = 1.0f;
#else
      const float scale0 = scales[top], scale1 = scales[bottom];
#endif
      #pragma unroll
      for (int n = 0; n < NT; n++) {
        #pragma unroll
        for (int j = 0; j < 2; j++) {
          const int m = first_row + 8 * n + 2 * t + j, column = 16 * tile + g;
          if (m >= rows) continue;
          Y *to = y + (i64)m * y_stride + column;
          if (column < columns) to[0] = from_float<Y>(upper_now <= last_now ? d[n][j] * scale0 + addend0 : 0.0f);
          if (column + 8 < columns) to[8] = from_float<Y>(lower_now <= last_now ? d[n][j + 2] * scale1 + addend1 : 0.0f);
        }
      }
    }
#endif
  }
}
`;
