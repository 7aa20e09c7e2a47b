/**
 * CUDA kernels of the norms' gradient. A resident grid goes through the rows, each row in the registers of its warps and
 * the next one's loads under way; blocks keep their sums of dWeight and dBias in registers and write one row of them to
 * scratch, which a second kernel adds up.
 */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, type CudaNode, defines, f32, i32, parameterOperand, rowOperand, typeOf } from '../cuda-kernel.ts';
import { PACKED_SOURCE, PARTIAL_ROOM, ROWS_SOURCE, addPartials, backwardLayout } from '../cuda-rows.ts';

const SOURCE = String.raw`
/* dx = dsum + r (g - mean(g) - hat mean(g hat)), g = weight dy; all (rows, width), dx may lie where dy does.
   partials: (blocks, dWeight then dBias, padded width). */
extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT) norm_backward(
    const X *x, int x_stride, const DY *dy, int dy_stride, const DSUM *dsum, int dsum_stride, DX *dx, int dx_stride,
    const float *__restrict__ weight, float *partials, int rows, int width, float eps) {
  __shared__ float cells[256];
#if DWEIGHT || DBIAS
  __shared__ ${PARTIAL_ROOM};
#endif
  int padded = (width + 15) & ~15, group = row_group(), turn = 0;
  float scale = 1.0f / (float)width;
  float w[CHUNKS][8];
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) load_parameter(w[c], weight, row_column(c), width);
#if DWEIGHT
  float weight_sums[CHUNKS][8] = {};
#endif
#if DBIAS
  float bias_sums[CHUNKS][8] = {};
#endif

  Packed<X, 8> next_x[CHUNKS];
  Packed<DY, 8> next_dy[CHUNKS];
#if HAS_DSUM
  Packed<DSUM, 8> next_dsum[CHUNKS];
#endif
  auto load = [&](int row) {
    #pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      int column = row_column(c);
      bool live = row < rows && column < padded;
      clear(next_x[c]);
      clear(next_dy[c]);
      if (live) load_packed(next_x[c], x + (i64)row * x_stride + column);
      if (live) load_packed(next_dy[c], dy + (i64)row * dy_stride + column);
#if HAS_DSUM
      clear(next_dsum[c]);
      if (live) load_packed(next_dsum[c], dsum + (i64)row * dsum_stride + column);
#endif
    }
  };
  load(blockIdx.x * GROUPS + group);
  for (int first = blockIdx.x * GROUPS; first < rows; first += gridDim.x * GROUPS, turn ^= 128) {
    int row = first + group;
    float v[CHUNKS][8], d[CHUNKS][8];
#if HAS_DSUM
    Packed<DSUM, 8> own_dsum[CHUNKS];
#endif
    #pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      unpack(v[c], next_x[c]);
      unpack(d[c], next_dy[c]);
      mask_columns(v[c], row_column(c), width);
      mask_columns(d[c], row_column(c), width);
#if HAS_DSUM
      own_dsum[c] = next_dsum[c];
#endif
    }
    load(row + gridDim.x * GROUPS);

    float square = 0.0f, product = 0.0f, mean_g = 0.0f;
#if CENTER
    float mean = 0.0f;
    #pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      #pragma unroll
      for (int j = 0; j < 8; j++) { mean += v[c][j]; mean_g += w[c][j] * d[c][j]; }
    }
    row_sums(mean, mean_g, cells + turn);
    mean *= scale;
    mean_g *= scale;
    #pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      #pragma unroll
      for (int j = 0; j < 8; j++) v[c][j] -= mean;
      mask_columns(v[c], row_column(c), width);
    }
#endif
    #pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      #pragma unroll
      for (int j = 0; j < 8; j++) { square += v[c][j] * v[c][j]; product += w[c][j] * d[c][j] * v[c][j]; }
    }
    row_sums(square, product, cells + turn + 64);
    float r = 1.0f / sqrtf(square * scale + eps);
    float slope = product * scale * r * r * r;
    #pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      float out[8];
      #pragma unroll
      for (int j = 0; j < 8; j++) {
        out[j] = r * (w[c][j] * d[c][j] - mean_g) - slope * v[c][j];
#if DWEIGHT
        weight_sums[c][j] += d[c][j] * (v[c][j] * r);
#endif
#if DBIAS
        bias_sums[c][j] += d[c][j];
#endif
      }
      int column = row_column(c);
#if HAS_DSUM
      float s[8];
      unpack(s, own_dsum[c]);
      #pragma unroll
      for (int j = 0; j < 8; j++) out[j] += s[j];
#endif
      mask_columns(out, column, width);
      store_columns(dx + (i64)row * dx_stride, column, row < rows && column < padded, out);
    }
  }
#if DWEIGHT
  write_partial(partials + (i64)blockIdx.x * (DWEIGHT + DBIAS) * padded, weight_sums, padded, room);
#endif
#if DBIAS
  write_partial(partials + ((i64)blockIdx.x * (DWEIGHT + DBIAS) + DWEIGHT) * padded, bias_sums, padded, room);
#endif
}
`;

const targetsOf = (node: CudaNode): bigint[] =>
  ['dWeight', 'dBias'].filter((name) => node.has(name)).map((name) => parameterOperand(node, name));

export const normBackwardCuda: CudaKernel = {
  scratchBytes(node) {
    const { rows, width } = node.buffer('x');
    return 4 * backwardLayout(node, width, rows).blocks * targetsOf(node).length * paddedColumns(width);
  },
  launches(node) {
    const { rows, width } = node.buffer('x');
    const layout = backwardLayout(node, width, rows);
    const targets = targetsOf(node);
    const values = {
      ...layout.values,
      X: typeOf(node, 'x'),
      DY: typeOf(node, 'dy'),
      DSUM: typeOf(node, 'dSum'),
      DX: typeOf(node, 'dx'),
      HAS_DSUM: node.has('dSum') ? 1 : 0,
      DWEIGHT: node.has('dWeight') ? 1 : 0,
      DBIAS: node.has('dBias') ? 1 : 0,
      CENTER: node.flag('center') ? 1 : 0,
    };
    return [
      {
        kind: 'kernel',
        source: defines(values) + PACKED_SOURCE + ROWS_SOURCE + SOURCE,
        entry: 'norm_backward',
        grid: [layout.blocks],
        block: layout.block,
        args: [
          ...['x', 'dy', 'dSum', 'dx'].flatMap((name) => rowOperand(node, name)),
          node.weight('weight').pointer,
          node.scratch,
          i32(rows),
          i32(width),
          f32(node.number('eps')),
        ],
      },
      ...(targets.length > 0 ? [addPartials(node, layout.blocks, width, targets)] : []),
    ];
  },
};
