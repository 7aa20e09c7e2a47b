/** Dropout of elements, rows x width; y may be x. A thread draws the numbers of its 4 or 8 columns. */

import { type CudaKernel, f32, i32 } from '../cuda-kernel.ts';
import { rowArguments, rowsLaunch, typeDefines, vectorWidth } from '../cuda-vectors.ts';
import { PHILOX_SOURCE } from './cuda-source.ts';

/**
 * seed: two halves of the key and the number of the first sample; a sample has `length` rows. ALIGNED: the width is a
 * multiple of 4, so that rows begin with a block of four numbers.
 */
const SOURCE = String.raw`
extern "C" __global__ void dropout(const X_TYPE *x, int xStride, Y_TYPE *y, int yStride, const int *seed, int stream,
                                   float rate, int length, int rows, int width, int columns) {
  int row, column;
  if (!place(rows, columns, row, column)) return;
  float values[VECTOR];
  load_row<VECTOR>(values, x + (i64)row * xStride + column);
  u32 key0 = (u32)seed[0], key1 = (u32)seed[1];
  u64 first = ((u64)(u32)seed[2] * (u32)length + (u32)row) * (u32)width + (u32)column;
#ifdef ALIGNED
  #pragma unroll
  for (int part = 0; part < VECTOR; part += 4) {
    u32 bits[4];
    philox((first + part) >> 2, (u32)stream, key0, key1, bits);
    #pragma unroll
    for (int i = 0; i < 4; i++) values[part + i] *= keep_scale(bits[i], rate);
  }
#else
  /* The vector begins anywhere in a block of four numbers, and ends one block later. */
  u64 last = (first + VECTOR - 1) >> 2;
  for (u64 block = first >> 2; block <= last; block++) {
    u32 bits[4];
    philox(block, (u32)stream, key0, key1, bits);
    #pragma unroll
    for (int i = 0; i < VECTOR; i++) {
      if ((first + i) >> 2 != block) continue;
      u32 lane = (u32)(first + i) & 3;
      values[i] *= keep_scale(lane == 0 ? bits[0] : lane == 1 ? bits[1] : lane == 2 ? bits[2] : bits[3], rate);
    }
  }
#endif
  clear_pads(values, column, width);
  store_row<VECTOR>(y + (i64)row * yStride + column, values);
}
`;

export const dropoutCuda: CudaKernel = {
  launches(node) {
    const [x, y] = [node.buffer('x'), node.buffer('y')];
    return [
      rowsLaunch({
        entry: 'dropout',
        source: PHILOX_SOURCE + SOURCE,
        specialise: { ...typeDefines({ x, y }), ...(y.width % 4 === 0 ? { ALIGNED: 1 } : {}) },
        vector: vectorWidth(x, y),
        y,
        args: [
          ...rowArguments(x, y),
          node.buffer('seed').pointer,
          i32(node.number('stream')),
          f32(node.number('rate')),
          i32(node.number('length')),
        ],
      }),
    ];
  },
};
