/**
 * Device code and launch shapes that kernels over rows share: vectors kept as they were loaded until they are used,
 * rows that one or more warps hold in registers, the logistic function in two precisions, and the sums of parameter
 * gradients over the blocks of a launch.
 */

import { paddedColumns } from '../graph/graph.ts';
import { type CudaNode, type KernelLaunch, i32 } from './cuda-kernel.ts';

/** Columns that a thread holds together; 16 bytes of 16-bit floats. */
const VECTOR = 8;
const MAX_ROW_WARPS = 32;

/** Packed<T, N>: N elements as loaded, so that many loads are under way in few registers. N * sizeof(T) is 8, 16 or 32. */
export const PACKED_SOURCE = String.raw`
template <typename T, int N> struct Packed { u32 words[N * sizeof(T) / 4]; };
template <typename T, int N> __device__ __forceinline__ void clear(Packed<T, N> &p) {
  #pragma unroll
  for (int i = 0; i < (int)(N * sizeof(T) / 4); i++) p.words[i] = 0;
}
template <typename T, int N> __device__ __forceinline__ void load_packed(Packed<T, N> &p, const T *from) {
  if constexpr (N * sizeof(T) % 16 == 0) {
    #pragma unroll
    for (int i = 0; i < (int)(N * sizeof(T) / 16); i++) {
      uint4 v = ((const uint4 *)from)[i];
      p.words[4 * i] = v.x; p.words[4 * i + 1] = v.y; p.words[4 * i + 2] = v.z; p.words[4 * i + 3] = v.w;
    }
  } else {
    uint2 v = *(const uint2 *)from;
    p.words[0] = v.x; p.words[1] = v.y;
  }
}
template <typename T, int N> __device__ __forceinline__ void unpack(float (&out)[N], const Packed<T, N> &p) {
  union { u32 words[N * sizeof(T) / 4]; T e[N]; } u;
  #pragma unroll
  for (int i = 0; i < (int)(N * sizeof(T) / 4); i++) u.words[i] = p.words[i];
  #pragma unroll
  for (int i = 0; i < N; i++) out[i] = to_float(u.e[i]);
}
/* Zero from column width on: what pads an input is not defined. */
template <int N> __device__ __forceinline__ void mask_columns(float (&v)[N], int column, int width) {
  if (column + N > width) {
    #pragma unroll
    for (int j = 0; j < N; j++) if (column + j >= width) v[j] = 0.0f;
  }
}
`;

/** `gate_sigmoid`, with the device's approximations when FAST is 1. */
export const SIGMOID_SOURCE = String.raw`
__device__ __forceinline__ float gate_sigmoid(float z) {
#if FAST
  return fast_reciprocal(1.0f + fast_exp(-z));
#else
  return sigmoid(z);
#endif
}
`;

/**
 * Rows in registers: a row belongs to ROW_WARPS warps, whose lane l holds the CHUNKS vectors of 8 columns from
 * (c * 32 * ROW_WARPS + l) * 8 on; a block of BLOCK threads has GROUPS rows at a time.
 */
export const ROWS_SOURCE = String.raw`
#define ROW_LANES (32 * ROW_WARPS)
__device__ __forceinline__ int row_group() { return threadIdx.x / ROW_LANES; }
__device__ __forceinline__ int row_column(int chunk) { return (chunk * ROW_LANES + (int)threadIdx.x % ROW_LANES) * 8; }

/* Sums a and b over the warps of a row. Calls that follow one another take turns with two sets of 64 cells, so that one
   barrier a call is enough. */
__device__ __forceinline__ void row_sums(float &a, float &b, float *cells) {
  a = warp_sum(a);
  b = warp_sum(b);
#if ROW_WARPS > 1
  int warp = threadIdx.x >> 5;
  if ((threadIdx.x & 31) == 0) { cells[2 * warp] = a; cells[2 * warp + 1] = b; }
  __syncthreads();
  const float *own = cells + 2 * (warp - warp % ROW_WARPS);
  a = 0.0f;
  b = 0.0f;
  #pragma unroll
  for (int i = 0; i < ROW_WARPS; i++) { a += own[2 * i]; b += own[2 * i + 1]; }
#endif
}

/* The 8 columns of a parameter, zero from column width on. */
__device__ __forceinline__ void load_parameter(float (&v)[8], const float *from, int column, int width) {
  if (column + 8 <= width) {
    load_row<8>(v, from + column);
  } else {
    #pragma unroll
    for (int j = 0; j < 8; j++) v[j] = column + j < width ? from[column + j] : 0.0f;
  }
}

/* Stores the 8 columns where live, which is the same in lanes 2 i and 2 i + 1; every lane takes part. Neighbours exchange
   halves of floats, so that each store of a warp fills whole sectors of 32 bytes. */
template <typename T> __device__ __forceinline__ void store_columns(T *row, int column, bool live, const float (&v)[8]) {
  if constexpr (sizeof(T) == 4) {
    bool odd = threadIdx.x & 1;
    float first[4], second[4];
    #pragma unroll
    for (int j = 0; j < 4; j++) {
      float got = __shfl_xor_sync(FULL_WARP, odd ? v[j] : v[4 + j], 1);
      first[j] = odd ? got : v[j];
      second[j] = odd ? v[4 + j] : got;
    }
    T *to = row + column - (odd ? 4 : 0);
    if (live) { store_row<4>(to, first); store_row<4>(to + 8, second); }
  } else {
    if (live) store_row<8>(row + column, v);
  }
}

/* Adds the groups' sums in the order of the groups and writes the block's row of them; every thread takes part. */
__device__ __forceinline__ void write_partial(float *to, float (&sums)[CHUNKS][8], int padded, float *room) {
  #pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
    int column = row_column(c);
#if GROUPS > 1
    __syncthreads();
    #pragma unroll
    for (int j = 0; j < 8; j++) room[j * BLOCK + threadIdx.x] = sums[c][j];
    __syncthreads();
    if (row_group() == 0) {
      #pragma unroll
      for (int j = 0; j < 8; j++) for (int g = 1; g < GROUPS; g++) sums[c][j] += room[j * BLOCK + g * ROW_LANES + threadIdx.x];
    }
#endif
    if (row_group() == 0 && column < padded) store_row<8>(to + column, sums[c]);
  }
}
`;

/** Floats of shared memory that `write_partial` needs as `room`. */
export const PARTIAL_ROOM = 'float room[GROUPS > 1 ? 8 * BLOCK : 1]';

/** `partial_sum`: a column's sum over the rows of partial sums, in a fixed order; blocks of 32 columns x 32 rows. */
export const PARTIAL_SUM_SOURCE = String.raw`
#define PARTIAL_ROWS 32
/* The total is right on the first warp; every thread takes part. */
__device__ __forceinline__ float partial_sum(const float *partials, int count, int stride, int column, bool live) {
  __shared__ float cells[PARTIAL_ROWS][32];
  int lane = threadIdx.x & 31, group = threadIdx.x >> 5;
  float sum = 0.0f;
  if (live) {
    #pragma unroll 8
    for (int p = group; p < count; p += PARTIAL_ROWS) sum += partials[(i64)p * stride + column];
  }
  cells[group][lane] = sum;
  __syncthreads();
  if (group == 0) {
    #pragma unroll
    for (int g = 1; g < PARTIAL_ROWS; g++) sum += cells[g][lane];
  }
  return sum;
}
`;
export const PARTIAL_SUM_BLOCK = 1024;

const ADD_PARTIALS_SOURCE = String.raw`
/* target[column] += the sum over the rows of partials (count, stride); the sums of a second target lie second columns
   further on. Targets have width elements that are used. */
extern "C" __global__ void __launch_bounds__(1024) add_partials(
    const float *partials, int count, int stride, int second, float *target, float *other, int width) {
  int column = blockIdx.x * 32 + (threadIdx.x & 31);
  float *to = blockIdx.y == 0 ? target : other;
  bool live = column < width;
  float sum = partial_sum(partials + (blockIdx.y == 0 ? 0 : second), count, stride, column, live);
  if (threadIdx.x < 32 && live) to[column] += sum;
}
`;

export interface RowLayout {
  /** ROW_WARPS, CHUNKS, GROUPS and BLOCK of `ROWS_SOURCE`. */
  readonly values: Readonly<Record<string, number>>;
  readonly block: number;
  /** Rows of a block at a time. */
  readonly groups: number;
}

/** Spreads rows of `width` columns over warps: at most `chunks` vectors a lane while that is possible, `warps` a block. */
export function rowLayout(width: number, chunks: number, warps: number): RowLayout {
  const vectors = paddedColumns(width) / VECTOR;
  const rowWarps = Math.min(MAX_ROW_WARPS, Math.ceil(vectors / (32 * chunks)));
  const groups = Math.max(1, Math.floor(warps / rowWarps));
  const block = 32 * rowWarps * groups;
  const values = { ROW_WARPS: rowWarps, CHUNKS: Math.ceil(vectors / (32 * rowWarps)), GROUPS: groups, BLOCK: block };
  return { values, block, groups };
}

/** Rows of a forward kernel: one or two warps a row, or as many as shorten the wait when there are few rows. */
export function forwardLayout(node: CudaNode, width: number, rows: number): RowLayout {
  return rows <= 2 * node.multiprocessors ? rowLayout(width, 1, 1) : rowLayout(width, 4, 4);
}

/**
 * Rows of a backward kernel: one vector a lane, so that sums of parameter gradients fit in registers beside a row; as many
 * blocks as are resident, 768 threads of a multiprocessor (80 registers each) or in float32 512.
 */
export function backwardLayout(node: CudaNode, width: number, rows: number): RowLayout & { readonly blocks: number } {
  const layout = rowLayout(width, 1, 8);
  const resident = Math.max(1, Math.floor((node.activation === 'f32' ? 512 : 768) / layout.block));
  const blocks = Math.min(Math.ceil(rows / layout.groups), resident * node.multiprocessors);
  return { ...layout, values: { ...layout.values, RESIDENT: resident }, blocks };
}

/** The launch that adds rows of partial sums, `count` of them, to one or two parameter gradients. */
export function addPartials(node: CudaNode, count: number, width: number, targets: readonly bigint[]): KernelLaunch {
  const padded = paddedColumns(width);
  return {
    kind: 'kernel',
    source: PARTIAL_SUM_SOURCE + ADD_PARTIALS_SOURCE,
    entry: 'add_partials',
    grid: [Math.ceil(width / 32), targets.length],
    block: PARTIAL_SUM_BLOCK,
    args: [node.scratch, i32(count), i32(padded * targets.length), i32(padded), targets[0] ?? 0n, targets[1] ?? 0n, i32(width)],
  };
}
