/** Copies the last `count` real rows of each sequence of T x D; rows before the first are clamped to it. */

import { type CudaKernel, i32 } from '../cuda-kernel.ts';
import { rowArguments, rowsLaunch, typeDefines, vectorWidth } from '../cuda-vectors.ts';

/** lengths: null where every sequence is full. */
const SOURCE = String.raw`
extern "C" __global__ void last_rows(const X_TYPE *x, int xStride, Y_TYPE *y, int yStride, const int *lengths, int length,
                                     int count, int rows, int width, int columns) {
  int row, column;
  if (!place(rows, columns, row, column)) return;
  int sequence = row / count;
  int from = (lengths ? lengths[sequence] : length) - count + (row - sequence * count);
  float values[VECTOR];
  load_row<VECTOR>(values, x + ((i64)sequence * length + (from > 0 ? from : 0)) * xStride + column);
  clear_pads(values, column, width);
  store_row<VECTOR>(y + (i64)row * yStride + column, values);
}
`;

export const lastRowsCuda: CudaKernel = {
  launches(node) {
    const [x, y] = [node.buffer('x'), node.buffer('y')];
    return [
      rowsLaunch({
        entry: 'last_rows',
        source: SOURCE,
        specialise: typeDefines({ x, y }),
        vector: vectorWidth(x, y),
        y,
        args: [
          ...rowArguments(x, y),
          node.has('lengths') ? node.buffer('lengths').pointer : 0n,
          i32(x.shape[1]!),
          i32(node.number('count')),
        ],
      }),
    ];
  },
};
