/** Table look-up: y[t] = weight[ids[t]], rows x D from a (V, D) table of any element; zeros for ids outside it. */

import { type CudaKernel, cType, i32 } from '../cuda-kernel.ts';
import { rowArguments, rowsLaunch, typeDefines } from '../cuda-vectors.ts';

/** y is float32, so a vector is 4 columns; int8 groups of columns, which share a scale, are multiples of 16. */
const VECTOR = 4;

const SOURCE = String.raw`
#ifdef GROUPED
__device__ __forceinline__ void load_table(float (&values)[VECTOR], const TABLE_TYPE *from, const float *scales, int group) {
  union { u32 v; signed char e[4]; } u;
  u.v = *(const u32 *)from;
  float scale = scales[group];
  #pragma unroll
  for (int i = 0; i < VECTOR; i++) values[i] = (float)u.e[i] * scale;
}
#else
__device__ __forceinline__ void load_table(float (&values)[VECTOR], const TABLE_TYPE *from, const float *, int) {
  load_row<VECTOR>(values, from);
}
#endif

/* groups: scales of a table row; groupSize: columns that share one. */
extern "C" __global__ void embedding(const int *ids, Y_TYPE *y, int yStride, const TABLE_TYPE *table, int tableStride,
                                     const float *scales, int groups, int groupSize, int vocabulary,
                                     int rows, int width, int columns) {
  int row, column;
  if (!place(rows, columns, row, column)) return;
  u32 id = (u32)ids[row];
  float values[VECTOR] = {};
  if (id < (u32)vocabulary) {
    load_table(values, table + (i64)id * tableStride + column, scales + (i64)id * groups, column / groupSize);
  }
  clear_pads(values, column, width);
  store_row<VECTOR>(y + (i64)row * yStride + column, values);
}
`;

export const embeddingCuda: CudaKernel = {
  wide: ['y'],
  launches(node) {
    const y = node.buffer('y');
    const table = node.weight('weight');
    const grouped = table.element === 'i8';
    return [
      rowsLaunch({
        entry: 'embedding',
        source: SOURCE,
        specialise: { ...typeDefines({ y }), TABLE_TYPE: cType(table.element), ...(grouped ? { GROUPED: 1 } : {}) },
        vector: VECTOR,
        y,
        args: [
          node.buffer('ids').pointer,
          ...rowArguments(y),
          table.pointer,
          i32(table.stride),
          grouped ? table.scales : 0n,
          i32(grouped ? Math.ceil(table.stride / table.groupSize) : 0),
          i32(grouped ? table.groupSize : 1),
          i32(table.shape[0]!),
        ],
      }),
    ];
  },
};
