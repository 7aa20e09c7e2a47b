/** Pooling of x (B, T, D) to y (B, D): the last token, or the mean of the others. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, defines, i32 } from '../cuda-kernel.ts';
import { ROWS_SOURCE, rowArguments, typeDefines, vectorWidth } from '../cuda-vectors.ts';

/**
 * Grid: images x slices of 32 VECTOR columns. A lane of each of the block's 8 warps takes one vector; warps share the
 * tokens and their sums are added in the order of warps.
 */
const SOURCE = String.raw`
extern "C" __global__ void pool(const X_TYPE *x, int xStride, Y_TYPE *y, int yStride, int tokens, int average, int width,
                                int columns) {
  __shared__ float sums[8][32 * VECTOR + 4];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int column = (int)(blockIdx.y * 32 + lane) * VECTOR;
  const X_TYPE *image = x + (i64)blockIdx.x * tokens * xStride + column;
  float sum[VECTOR] = {};
  if (column < columns) {
    if (!average) {
      if (warp == 0) load_row<VECTOR>(sum, image + (i64)(tokens - 1) * xStride);
    } else {
      #pragma unroll 4
      for (int token = warp; token < tokens - 1; token += 8) {
        float values[VECTOR];
        load_row<VECTOR>(values, image + (i64)token * xStride);
        #pragma unroll
        for (int i = 0; i < VECTOR; i++) sum[i] += values[i];
      }
    }
  }
  #pragma unroll
  for (int i = 0; i < VECTOR; i++) sums[warp][lane * VECTOR + i] = sum[i];
  __syncthreads();
  if (warp != 0 || column >= columns) return;
  float scale = average ? 1.0f / (float)(tokens - 1) : 1.0f;
  #pragma unroll
  for (int i = 0; i < VECTOR; i++) {
    float total = 0.0f;
    #pragma unroll
    for (int other = 0; other < 8; other++) total += sums[other][lane * VECTOR + i];
    sum[i] = total * scale;
  }
  clear_pads(sum, column, width);
  store_row<VECTOR>(y + (i64)blockIdx.x * yStride + column, sum);
}
`;

export const poolCuda: CudaKernel = {
  launches(node) {
    const [x, y] = [node.buffer('x'), node.buffer('y')];
    const vector = vectorWidth(x, y);
    const columns = paddedColumns(y.width);
    return [
      {
        kind: 'kernel',
        source: defines({ VECTOR: vector, ...typeDefines({ x, y }) }) + ROWS_SOURCE + SOURCE,
        entry: 'pool',
        grid: [y.rows, Math.ceil(columns / (32 * vector))],
        block: 256,
        args: [...rowArguments(x, y), i32(x.shape[1]!), i32(node.flag('average') ? 1 : 0), i32(y.width), i32(columns)],
      },
    ];
  },
};
