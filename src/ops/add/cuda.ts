/** y = a + b, rows x width; y may be a. */

import type { CudaKernel } from '../cuda-kernel.ts';
import { rowArguments, rowsLaunch, typeDefines, vectorWidth } from '../cuda-vectors.ts';

const SOURCE = String.raw`
extern "C" __global__ void add(const A_TYPE *a, int aStride, const B_TYPE *b, int bStride, Y_TYPE *y, int yStride,
                               int rows, int width, int columns) {
  int row, column;
  if (!place(rows, columns, row, column)) return;
  float left[VECTOR], right[VECTOR];
  load_row<VECTOR>(left, a + (i64)row * aStride + column);
  load_row<VECTOR>(right, b + (i64)row * bStride + column);
  #pragma unroll
  for (int i = 0; i < VECTOR; i++) left[i] += right[i];
  clear_pads(left, column, width);
  store_row<VECTOR>(y + (i64)row * yStride + column, left);
}
`;

export const addCuda: CudaKernel = {
  launches(node) {
    const [a, b, y] = [node.buffer('a'), node.buffer('b'), node.buffer('y')];
    return [
      rowsLaunch({
        entry: 'add',
        source: SOURCE,
        specialise: typeDefines({ a, b, y }),
        vector: vectorWidth(a, b, y),
        y,
        args: rowArguments(a, b, y),
      }),
    ];
  },
};
