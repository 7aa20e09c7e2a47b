/**
 * CUDA kernel of the row norms, for `norm` and `add_norm`: a row in the registers of its warps, read once, its scale (or
 * mean and deviation) from sums over the warps, written once.
 */

import {
  type CudaKernel,
  type CudaLaunch,
  type CudaNode,
  defines,
  f32,
  i32,
  parameterOperand,
  rowOperand,
  typeOf,
} from '../cuda-kernel.ts';
import { PACKED_SOURCE, ROWS_SOURCE, forwardLayout } from '../cuda-rows.ts';

const SOURCE = String.raw`
/* y = norm(x) * weight + bias; with ADD sum = x + residual and y the norm of that. All (rows, width). */
extern "C" __global__ void __launch_bounds__(BLOCK) norm_rows(
    const X *x, int x_stride, const RESIDUAL *residual, int residual_stride, SUM *sum, int sum_stride, Y *y, int y_stride,
    const float *__restrict__ weight, const float *__restrict__ bias, int rows, int width, float eps) {
  __shared__ float cells[128];
  int row = blockIdx.x * GROUPS + row_group();
  int padded = row < rows ? (width + 15) & ~15 : 0;
  float scale = 1.0f / (float)width;

  /* All loads before the first use; sum may lie where residual does. */
  Packed<X, 8> loaded[CHUNKS];
#if ADD
  Packed<RESIDUAL, 8> added[CHUNKS];
#endif
  float w[CHUNKS][8];
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
    int column = row_column(c);
    clear(loaded[c]);
    if (column < padded) load_packed(loaded[c], x + (i64)row * x_stride + column);
#if ADD
    clear(added[c]);
    if (column < padded) load_packed(added[c], residual + (i64)row * residual_stride + column);
#endif
  }
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) load_parameter(w[c], weight, row_column(c), width);

  float v[CHUNKS][8];
  float total = 0.0f, square = 0.0f;
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
    int column = row_column(c);
    unpack(v[c], loaded[c]);
#if ADD
    float r[8];
    unpack(r, added[c]);
    #pragma unroll
    for (int j = 0; j < 8; j++) v[c][j] += r[j];
#endif
    mask_columns(v[c], column, width);
#if ADD
    store_columns(sum + (i64)row * sum_stride, column, column < padded, v[c]);
#endif
    #pragma unroll
    for (int j = 0; j < 8; j++) { total += v[c][j]; square += v[c][j] * v[c][j]; }
  }
  row_sums(total, square, cells);
#if CENTER
  float mean = total * scale;
  square = 0.0f;
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
    #pragma unroll
    for (int j = 0; j < 8; j++) v[c][j] -= mean;
    mask_columns(v[c], row_column(c), width);
    #pragma unroll
    for (int j = 0; j < 8; j++) square += v[c][j] * v[c][j];
  }
  row_sums(square, total, cells + 64);
#endif
  float r = 1.0f / sqrtf(square * scale + eps);
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
    int column = row_column(c);
    #pragma unroll
    for (int j = 0; j < 8; j++) v[c][j] *= r * w[c][j];
    if (bias) {
      float shift[8];
      load_parameter(shift, bias, column, width);
      #pragma unroll
      for (int j = 0; j < 8; j++) v[c][j] += shift[j];
    }
    store_columns(y + (i64)row * y_stride, column, column < padded, v[c]);
  }
}
`;

/** The launch of either op; `norm` has no residual and no sum. */
export function normLaunches(node: CudaNode): readonly CudaLaunch[] {
  const { rows, width } = node.buffer('x');
  const layout = forwardLayout(node, width, rows);
  const values = {
    ...layout.values,
    X: typeOf(node, 'x'),
    RESIDUAL: typeOf(node, 'residual'),
    SUM: typeOf(node, 'sum'),
    Y: typeOf(node, 'y'),
    ADD: node.has('residual') ? 1 : 0,
    CENTER: node.flag('center') ? 1 : 0,
  };
  return [
    {
      kind: 'kernel',
      source: defines(values) + PACKED_SOURCE + ROWS_SOURCE + SOURCE,
      entry: 'norm_rows',
      grid: [Math.ceil(rows / layout.groups)],
      block: layout.block,
      args: [
        ...['x', 'residual', 'sum', 'y'].flatMap((name) => rowOperand(node, name)),
        node.weight('weight').pointer,
        parameterOperand(node, 'bias'),
        i32(rows),
        i32(width),
        f32(node.number('eps')),
      ],
    },
  ];
}

export const normCuda: CudaKernel = { launches: normLaunches };
