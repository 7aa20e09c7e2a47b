/**
 * Kernels that go through rows in vectors of columns: a thread takes VECTOR consecutive columns of one row, so that a
 * warp's loads and stores are consecutive. VECTOR is 8 where all operands have 16 bits, else 4 (16 bytes a load at most).
 */

import { paddedColumns } from '../graph/graph.ts';
import { type CudaArgument, type CudaBuffer, type CudaElement, type KernelLaunch, cType, defines, i32 } from './cuda-kernel.ts';

/** Device functions of such kernels; put behind a definition of VECTOR. */
export const ROWS_SOURCE = String.raw`
/* Row and first column of this thread's vector; columns: padded width. False beyond the last row. */
__device__ __forceinline__ bool place(int rows, int columns, int &row, int &column) {
  u32 across = (u32)columns / VECTOR;
  u32 item = blockIdx.x * blockDim.x + threadIdx.x;
  u32 found = item / across;
  row = (int)found;
  column = (int)(item - found * across) * VECTOR;
  return found < (u32)rows;
}
/* Zeroes the values beyond the width. */
__device__ __forceinline__ void clear_pads(float (&values)[VECTOR], int column, int width) {
  if (column + VECTOR <= width) return;
  #pragma unroll
  for (int i = 0; i < VECTOR; i++) if (column + i >= width) values[i] = 0.0f;
}
`;

/** Columns that a thread takes of operands of these elements. */
export function vectorWidth(...buffers: readonly { readonly element: CudaElement }[]): 4 | 8 {
  return buffers.every(({ element }) => element === 'bf16' || element === 'f16') ? 8 : 4;
}

/** `X_TYPE` and the like for each operand, by name. */
export function typeDefines(buffers: Readonly<Record<string, CudaBuffer>>): Record<string, string> {
  return Object.fromEntries(Object.entries(buffers).map(([name, { element }]) => [`${name.toUpperCase()}_TYPE`, cType(element)]));
}

/** Address and stride of each buffer, in order. */
export function rowArguments(...buffers: readonly CudaBuffer[]): CudaArgument[] {
  return buffers.flatMap(({ pointer, stride }) => [pointer, i32(stride)]);
}

const BLOCK = 256;

/** A kernel that finds its vector by `place`, with `args` and then rows, width and padded width of `y` as its arguments. */
export function rowsLaunch(options: {
  readonly entry: string;
  readonly source: string;
  readonly specialise?: Readonly<Record<string, string | number>>;
  readonly vector: number;
  readonly y: CudaBuffer;
  readonly args: readonly CudaArgument[];
}): KernelLaunch {
  const { entry, source, specialise, vector, y, args } = options;
  const columns = paddedColumns(y.width);
  return {
    kind: 'kernel',
    source: defines({ VECTOR: vector, ...specialise }) + ROWS_SOURCE + source,
    entry,
    grid: [Math.ceil((y.rows * columns) / vector / BLOCK)],
    block: BLOCK,
    args: [...args, i32(y.rows), i32(y.width), i32(columns)],
  };
}
