/**
 * CUDA kernels of the gated norm's gradient, built like those of `norm_backward`: a resident grid, the next row's loads
 * under way, sums of dWeight in registers and then in scratch.
 */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, defines, f32, i32, parameterOperand, rowOperand, typeOf } from '../cuda-kernel.ts';
import { PACKED_SOURCE, PARTIAL_ROOM, ROWS_SOURCE, SIGMOID_SOURCE, addPartials, backwardLayout } from '../cuda-rows.ts';

const SOURCE = String.raw`
/* With v the normed value, hat = r v and g the gradient of hat: dv = r (g - hat mean(g hat)). Gate first: v = x silu(z),
   g = weight dy, dx = dv silu(z), dz = dv x silu'(z). NORM_FIRST: v = x, g = weight dy silu(z), dx = dv,
   dz = dy hat weight silu'(z). All (rows, width), dx may lie where dy does; partials: (blocks, padded width) of dWeight. */
extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT) gated_norm_backward(
    const X *x, int x_stride, const Z *z, int z_stride, const DY *dy, int dy_stride, DX *dx, int dx_stride, DZ *dz,
    int dz_stride, const float *__restrict__ weight, float *partials, int rows, int width, float eps) {
  __shared__ float cells[128];
#if DWEIGHT
  __shared__ ${PARTIAL_ROOM};
  float weight_sums[CHUNKS][8] = {};
#endif
  int padded = (width + 15) & ~15, group = row_group(), turn = 0;
  float scale = 1.0f / (float)width;
  float w[CHUNKS][8];
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) load_parameter(w[c], weight, row_column(c), width);

  Packed<X, 8> next_x[CHUNKS];
  Packed<Z, 8> next_z[CHUNKS];
  Packed<DY, 8> next_dy[CHUNKS];
  auto load = [&](int row) {
    #pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      int column = row_column(c);
      bool live = row < rows && column < padded;
      clear(next_x[c]);
      clear(next_z[c]);
      clear(next_dy[c]);
      if (live) load_packed(next_x[c], x + (i64)row * x_stride + column);
      if (live) load_packed(next_z[c], z + (i64)row * z_stride + column);
      if (live) load_packed(next_dy[c], dy + (i64)row * dy_stride + column);
    }
  };
  load(blockIdx.x * GROUPS + group);
  for (int first = blockIdx.x * GROUPS; first < rows; first += gridDim.x * GROUPS, turn ^= 64) {
    int row = first + group;
    float in[CHUNKS][8], d[CHUNKS][8], open[CHUNKS][8], slope[CHUNKS][8];
    float square = 0.0f, product = 0.0f;
    #pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      float gate[8];
      unpack(in[c], next_x[c]);
      unpack(gate, next_z[c]);
      unpack(d[c], next_dy[c]);
      mask_columns(in[c], row_column(c), width);
      mask_columns(gate, row_column(c), width);
      mask_columns(d[c], row_column(c), width);
      #pragma unroll
      for (int j = 0; j < 8; j++) {
        float s = gate_sigmoid(gate[j]);
        open[c][j] = gate[j] * s;
        slope[c][j] = s * (1.0f + gate[j] * (1.0f - s));
        float v = NORM_FIRST ? in[c][j] : in[c][j] * open[c][j];
        float g = NORM_FIRST ? d[c][j] * open[c][j] : d[c][j];
        square += v * v;
        product += w[c][j] * g * v;
      }
    }
    load(row + gridDim.x * GROUPS);
    row_sums(square, product, cells + turn);
    float r = 1.0f / sqrtf(square * scale + eps);
    float along = product * scale * r * r * r;
    #pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      float out[8], out_z[8];
      #pragma unroll
      for (int j = 0; j < 8; j++) {
        float v = NORM_FIRST ? in[c][j] : in[c][j] * open[c][j];
        float g = NORM_FIRST ? d[c][j] * open[c][j] : d[c][j];
        float dv = r * w[c][j] * g - along * v;
        out[j] = NORM_FIRST ? dv : dv * open[c][j];
        out_z[j] = (NORM_FIRST ? d[c][j] * (r * v) * w[c][j] : dv * in[c][j]) * slope[c][j];
#if DWEIGHT
        weight_sums[c][j] += g * (r * v);
#endif
      }
      int column = row_column(c);
      bool live = row < rows && column < padded;
      store_columns(dx + (i64)row * dx_stride, column, live, out);
      store_columns(dz + (i64)row * dz_stride, column, live, out_z);
    }
  }
#if DWEIGHT
  write_partial(partials + (i64)blockIdx.x * padded, weight_sums, padded, room);
#endif
}
`;

export const gatedNormBackwardCuda: CudaKernel = {
  scratchBytes(node) {
    const { rows, width } = node.buffer('x');
    return node.has('dWeight') ? 4 * backwardLayout(node, width, rows).blocks * paddedColumns(width) : 0;
  },
  launches(node) {
    const { rows, width } = node.buffer('x');
    const layout = backwardLayout(node, width, rows);
    const values = {
      ...layout.values,
      X: typeOf(node, 'x'),
      Z: typeOf(node, 'z'),
      DY: typeOf(node, 'dy'),
      DX: typeOf(node, 'dx'),
      DZ: typeOf(node, 'dz'),
      DWEIGHT: node.has('dWeight') ? 1 : 0,
      NORM_FIRST: node.flag('normBeforeGate') ? 1 : 0,
      FAST: node.activation === 'f32' ? 0 : 1,
    };
    return [
      {
        kind: 'kernel',
        source: defines(values) + PACKED_SOURCE + SIGMOID_SOURCE + ROWS_SOURCE + SOURCE,
        entry: 'gated_norm_backward',
        grid: [layout.blocks],
        block: layout.block,
        args: [
          ...['x', 'z', 'dy', 'dx', 'dz'].flatMap((name) => rowOperand(node, name)),
          node.weight('weight').pointer,
          node.scratch,
          i32(rows),
          i32(width),
          f32(node.number('eps')),
        ],
      },
      ...(node.has('dWeight') ? [addPartials(node, layout.blocks, width, [parameterOperand(node, 'dWeight')])] : []),
    ];
  },
};
