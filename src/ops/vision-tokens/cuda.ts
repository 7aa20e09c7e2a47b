/** y (B, L+1, D): the patches x (B, L, D) and behind them the class token, plus the positions. D is a multiple of 32. */

import { type CudaKernel, i32 } from '../cuda-kernel.ts';
import { rowArguments, rowsLaunch, typeDefines, vectorWidth } from '../cuda-vectors.ts';

/** position: (L+1) x D and classToken: D floats, contiguous; tokens = L + 1. */
const SOURCE = String.raw`
extern "C" __global__ void vision_tokens(const X_TYPE *x, int xStride, Y_TYPE *y, int yStride, const float *classToken,
                                         const float *position, int tokens, int rows, int width, int columns) {
  int row, column;
  if (!place(rows, columns, row, column)) return;
  int image = row / tokens, token = row - image * tokens;
  float values[VECTOR], added[VECTOR];
  load_row<VECTOR>(added, position + (i64)token * width + column);
  if (token == tokens - 1) load_row<VECTOR>(values, classToken + column);
  else load_row<VECTOR>(values, x + ((i64)image * (tokens - 1) + token) * xStride + column);
  #pragma unroll
  for (int i = 0; i < VECTOR; i++) values[i] += added[i];
  store_row<VECTOR>(y + (i64)row * yStride + column, values);
}
`;

export const visionTokensCuda: CudaKernel = {
  wide: ['y'],
  launches(node) {
    const [x, y] = [node.buffer('x'), node.buffer('y')];
    return [
      rowsLaunch({
        entry: 'vision_tokens',
        source: SOURCE,
        specialise: typeDefines({ x, y }),
        vector: vectorWidth(x, y),
        y,
        args: [...rowArguments(x, y), node.weight('classToken').pointer, node.weight('position').pointer, i32(y.shape[1]!)],
      }),
    ];
  },
};
