/** dx (B, length, D): the rows of dy (B, count, D) where `last_rows` picked them, zeros elsewhere. */

import { type CudaKernel, i32 } from '../cuda-kernel.ts';
import { rowArguments, rowsLaunch, typeDefines, vectorWidth } from '../cuda-vectors.ts';

/** lengths: null where every sequence is full. */
const SOURCE = String.raw`
extern "C" __global__ void last_rows_backward(const DY_TYPE *dy, int dyStride, DX_TYPE *dx, int dxStride, const int *lengths,
                                              int length, int count, int rows, int width, int columns) {
  int row, column;
  if (!place(rows, columns, row, column)) return;
  int sequence = row / length;
  int picked = row - sequence * length - ((lengths ? lengths[sequence] : length) - count);
  float values[VECTOR] = {};
  if (picked >= 0 && picked < count) load_row<VECTOR>(values, dy + ((i64)sequence * count + picked) * dyStride + column);
  clear_pads(values, column, width);
  store_row<VECTOR>(dx + (i64)row * dxStride + column, values);
}
`;

export const lastRowsBackwardCuda: CudaKernel = {
  launches(node) {
    const [dy, dx] = [node.buffer('dy'), node.buffer('dx')];
    return [
      rowsLaunch({
        entry: 'last_rows_backward',
        source: SOURCE,
        specialise: typeDefines({ dy, dx }),
        vector: vectorWidth(dy, dx),
        y: dx,
        args: [
          ...rowArguments(dy, dx),
          node.has('lengths') ? node.buffer('lengths').pointer : 0n,
          i32(dx.shape[1]!),
          i32(dy.shape[1]!),
        ],
      }),
    ];
  },
};
