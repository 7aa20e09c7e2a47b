/** dx (B, T, D) from dy (B, D): all of it to the last token, or an equal share to each of the others. */

import { type CudaKernel, i32 } from '../cuda-kernel.ts';
import { rowArguments, rowsLaunch, typeDefines, vectorWidth } from '../cuda-vectors.ts';

const SOURCE = String.raw`
extern "C" __global__ void pool_backward(const DY_TYPE *dy, int dyStride, DX_TYPE *dx, int dxStride, int tokens, int average,
                                         int rows, int width, int columns) {
  int row, column;
  if (!place(rows, columns, row, column)) return;
  int image = row / tokens;
  bool last = row - image * tokens == tokens - 1;
  float values[VECTOR] = {};
  if (last == (average == 0)) {
    float share = average ? 1.0f / (float)(tokens - 1) : 1.0f;
    load_row<VECTOR>(values, dy + (i64)image * dyStride + column);
    #pragma unroll
    for (int i = 0; i < VECTOR; i++) values[i] *= share;
  }
  clear_pads(values, column, width);
  store_row<VECTOR>(dx + (i64)row * dxStride + column, values);
}
`;

export const poolBackwardCuda: CudaKernel = {
  launches(node) {
    const [dy, dx] = [node.buffer('dy'), node.buffer('dx')];
    return [
      rowsLaunch({
        entry: 'pool_backward',
        source: SOURCE,
        specialise: typeDefines({ dy, dx }),
        vector: vectorWidth(dy, dx),
        y: dx,
        args: [...rowArguments(dy, dx), i32(dx.shape[1]!), i32(node.flag('average') ? 1 : 0)],
      }),
    ];
  },
};
