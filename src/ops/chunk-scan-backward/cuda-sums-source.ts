/** CUDA text of the sums over what the blocks of the scan's gradient leave in scratch, in fixed orders. */

export const SUMS_SOURCE = String.raw`
/*
 * db and dc: the sum of parts (count, rows, NS) of TPART. Grid (blocks, 2); a thread has 8 columns of a row of NS = N
 * rounded up to 16 columns.
 */
extern "C" __global__ void __launch_bounds__(256) sum_parts(const TPART *db_parts, const TPART *dc_parts, TDB *db, int db_stride,
    TDC *dc, int dc_stride, int first_row, int rows, int count) {
  int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= rows * (NS / 8)) return;
  int row = i / (NS / 8), n = i % (NS / 8) * 8;
  const TPART *from = (blockIdx.y ? dc_parts : db_parts) + (i64)row * NS + n;
  float sum[8] = {};
  #pragma unroll 4
  for (int g = 0; g < count; g++, from += (i64)rows * NS) {
    float v[8];
    load_row(v, from);
    #pragma unroll
    for (int j = 0; j < 8; j++) sum[j] += v[j];
  }
  #pragma unroll
  for (int j = 0; j < 8; j++) if (n + j >= N) sum[j] = 0.0f;
  if (blockIdx.y) store_row(dc + (i64)(first_row + row) * dc_stride + n, sum);
  else store_row(db + (i64)(first_row + row) * db_stride + n, sum);
}

/* ddt: the sum of parts (rows, heads, PARTS). */
extern "C" __global__ void __launch_bounds__(256) sum_steps(const float *parts, TDDT *ddt, int ddt_stride, int first_row, int rows,
    int heads) {
  int padded = (heads + 15) & ~15, i = blockIdx.x * 256 + threadIdx.x;
  if (i >= rows * padded) return;
  int row = i / padded, h = i % padded;
  float sum = 0.0f;
  if (h < heads) for (int q = 0; q < PARTS; q++) sum += parts[((i64)row * heads + h) * PARTS + q];
  ddt[(i64)(first_row + row) * ddt_stride + h] = from_float<TDDT>(sum);
}

/*
 * Adds parts (batch, heads, PARTS, 2 + PW) to the gradients of the parameters; null where there is none. Grid (heads);
 * a warp has a number of the head.
 */
extern "C" __global__ void __launch_bounds__(128) add_parameters(const float *parts, float *dt_bias, float *a_log, float *d,
    int d_per_channel, int batch, int heads) {
  int head = blockIdx.x, lane = threadIdx.x & 31;
  const float *from = parts + (i64)head * PARTS * (2 + PW);
  i64 stride = (i64)heads * PARTS * (2 + PW);
  int numbers = d_per_channel ? 2 + P : 3;
  for (int k = threadIdx.x >> 5; k < numbers; k += 4) {
    float *to = k == 0 ? dt_bias : k == 1 ? a_log : d;
    float sum = 0.0f;
    for (int row = lane; row < batch; row += 32) {
      const float *mine = from + row * stride;
      if (k < 2) {
        for (int q = 0; q < PARTS; q++) sum += mine[q * (2 + PW) + k];
      } else if (d_per_channel) {
        sum += mine[(k - 2) / PW * (2 + PW) + 2 + (k - 2) % PW];
      } else {
        for (int p = 0; p < P; p++) sum += mine[p / PW * (2 + PW) + 2 + p % PW];
      }
    }
    sum = warp_sum(sum);
    if (lane == 0 && to) to[k < 2 ? head : d_per_channel ? head * P + k - 2 : head] += sum;
  }
}
`;
