/** CUDA kernel of the gated norm: a row of x and z in the registers of its warps, read once and written once. */

import { type CudaKernel, defines, f32, i32, rowOperand, typeOf } from '../cuda-kernel.ts';
import { PACKED_SOURCE, ROWS_SOURCE, SIGMOID_SOURCE, forwardLayout } from '../cuda-rows.ts';

const SOURCE = String.raw`
/* y = rms(x silu(z)) weight, or with NORM_FIRST rms(x) weight silu(z); all (rows, width), y may lie where x does. */
extern "C" __global__ void __launch_bounds__(BLOCK) gated_norm(
    const X *x, int x_stride, const Z *z, int z_stride, Y *y, int y_stride, const float *__restrict__ weight, int rows,
    int width, float eps) {
  __shared__ float cells[64];
  int row = blockIdx.x * GROUPS + row_group();
  int padded = row < rows ? (width + 15) & ~15 : 0;
  Packed<X, 8> loaded[CHUNKS];
  Packed<Z, 8> gates[CHUNKS];
  float w[CHUNKS][8];
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
    int column = row_column(c);
    clear(loaded[c]);
    clear(gates[c]);
    if (column < padded) load_packed(loaded[c], x + (i64)row * x_stride + column);
    if (column < padded) load_packed(gates[c], z + (i64)row * z_stride + column);
  }
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) load_parameter(w[c], weight, row_column(c), width);

  float v[CHUNKS][8];
  float square = 0.0f, unused = 0.0f;
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
    float gate[8];
    unpack(v[c], loaded[c]);
    unpack(gate, gates[c]);
    mask_columns(v[c], row_column(c), width);
    mask_columns(gate, row_column(c), width);
    #pragma unroll
    for (int j = 0; j < 8; j++) {
      float open = gate[j] * gate_sigmoid(gate[j]);
#if NORM_FIRST
      w[c][j] *= open;
#else
      v[c][j] *= open;
#endif
      square += v[c][j] * v[c][j];
    }
  }
  row_sums(square, unused, cells);
  float r = 1.0f / sqrtf(square * (1.0f / (float)width) + eps);
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
    int column = row_column(c);
    #pragma unroll
    for (int j = 0; j < 8; j++) v[c][j] *= r * w[c][j];
    store_columns(y + (i64)row * y_stride, column, column < padded, v[c]);
  }
}
`;

export const gatedNormCuda: CudaKernel = {
  launches(node) {
    const { rows, width } = node.buffer('x');
    const layout = forwardLayout(node, width, rows);
    const values = {
      ...layout.values,
      X: typeOf(node, 'x'),
      Z: typeOf(node, 'z'),
      Y: typeOf(node, 'y'),
      NORM_FIRST: node.flag('normBeforeGate') ? 1 : 0,
      FAST: node.activation === 'f32' ? 0 : 1,
    };
    return [
      {
        kind: 'kernel',
        source: defines(values) + PACKED_SOURCE + SIGMOID_SOURCE + ROWS_SOURCE + SOURCE,
        entry: 'gated_norm',
        grid: [Math.ceil(rows / layout.groups)],
        block: layout.block,
        args: [
          ...['x', 'z', 'y'].flatMap((name) => rowOperand(node, name)),
          node.weight('weight').pointer,
          i32(rows),
          i32(width),
          f32(node.number('eps')),
        ],
      },
    ];
  },
};
