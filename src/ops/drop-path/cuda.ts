/** Drop path: samples of T rows x D are kept or dropped as a whole; y may be x. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, defines, f32, i32 } from '../cuda-kernel.ts';
import { ROWS_SOURCE, rowArguments, typeDefines, vectorWidth } from '../cuda-vectors.ts';
import { PHILOX_SOURCE } from '../dropout/cuda-source.ts';

const BLOCK = 256;
/** Vectors of columns that a thread takes, so that its number is drawn for more than one. */
const VECTORS = 4;

/** Grid: samples x pieces of a sample. A dropped sample is not read. */
const SOURCE = String.raw`
extern "C" __global__ void drop_path(const X_TYPE *x, int xStride, Y_TYPE *y, int yStride, const int *seed, int stream,
                                     float rate, int length, int width, int columns) {
  u64 number = (u64)(u32)seed[2] + blockIdx.x;
  u32 bits[4];
  philox(number >> 2, (u32)stream, (u32)seed[0], (u32)seed[1], bits);
  u32 lane = (u32)number & 3;
  float keep = keep_scale(lane == 0 ? bits[0] : lane == 1 ? bits[1] : lane == 2 ? bits[2] : bits[3], rate);
  u32 across = (u32)columns / VECTOR, items = (u32)length * across;
  i64 firstRow = (i64)blockIdx.x * length;
  #pragma unroll
  for (int k = 0; k < VECTORS; k++) {
    u32 item = (blockIdx.y * VECTORS + k) * blockDim.x + threadIdx.x;
    if (item >= items) continue;
    u32 inside = item / across;
    int column = (int)(item - inside * across) * VECTOR;
    i64 row = firstRow + inside;
    float values[VECTOR];
    if (keep != 0.0f) load_row<VECTOR>(values, x + row * xStride + column);
    #pragma unroll
    for (int i = 0; i < VECTOR; i++) values[i] = keep != 0.0f ? values[i] * keep : 0.0f;
    clear_pads(values, column, width);
    store_row<VECTOR>(y + row * yStride + column, values);
  }
}
`;

export const dropPathCuda: CudaKernel = {
  launches(node) {
    const [x, y] = [node.buffer('x'), node.buffer('y')];
    const [batch, length, width] = y.shape as [number, number, number];
    const columns = paddedColumns(width);
    const vector = vectorWidth(x, y);
    return [
      {
        kind: 'kernel',
        source: defines({ VECTOR: vector, VECTORS, ...typeDefines({ x, y }) }) + ROWS_SOURCE + PHILOX_SOURCE + SOURCE,
        entry: 'drop_path',
        grid: [batch, Math.ceil((length * columns) / vector / (BLOCK * VECTORS))],
        block: BLOCK,
        args: [
          ...rowArguments(x, y),
          node.buffer('seed').pointer,
          i32(node.number('stream')),
          f32(node.number('rate')),
          i32(length),
          i32(width),
          i32(columns),
        ],
      },
    ];
  },
};
