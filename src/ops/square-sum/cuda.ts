/** Sums of squares of float32 buffers; nodes chained by `before` are summed in one launch over all of them. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, type CudaLaunch, type CudaNode, i32 } from '../cuda-kernel.ts';
import { pieceCount, pieceTable } from '../cuda-pieces.ts';

const PIECE = 16384;

/**
 * A block of 256 threads sums a piece of up to 16,384 floats to one partial sum; `total` adds the partial sums in float64, each thread
 * its own in order and then the threads' by halves, so the order is always the same.
 */
const SOURCE = String.raw`
struct Piece { const float *x; u32 count; u32 flag; };

extern "C" __global__ void __launch_bounds__(256) square_sum(const Piece *pieces, float *partials) {
  __shared__ float cells[32];
  Piece piece = pieces[blockIdx.x];
  u32 whole = piece.count & ~3u;
  float sums[4] = {};
  u32 at = threadIdx.x * 4;
  /* Four loads under way at a time. */
  for (; at + 12 * 256 < whole; at += 16 * 256) {
    float x[4][4];
    #pragma unroll
    for (int k = 0; k < 4; k++) load_row<4>(x[k], piece.x + at + 4 * 256 * k);
    #pragma unroll
    for (int k = 0; k < 4; k++) {
      #pragma unroll
      for (int j = 0; j < 4; j++) sums[j] += x[k][j] * x[k][j];
    }
  }
  for (; at < whole; at += 4 * 256) {
    float x[4];
    load_row<4>(x, piece.x + at);
    #pragma unroll
    for (int j = 0; j < 4; j++) sums[j] += x[j] * x[j];
  }
  u32 i = whole + threadIdx.x;
  if (i < piece.count) sums[0] += piece.x[i] * piece.x[i];
  float sum = block_sum((sums[0] + sums[1]) + (sums[2] + sums[3]), cells);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

/* before: null starts at zero; y: one number, its padding zeroed. 512 threads. */
extern "C" __global__ void __launch_bounds__(512) total(const float *partials, int count, const float *before, float *y,
                                                        int columns) {
  __shared__ double sums[512];
  double sum = 0.0;
  #pragma unroll 4
  for (int i = threadIdx.x; i < count; i += 512) sum += (double)partials[i];
  sums[threadIdx.x] = sum;
  for (int half = 256; half > 0; half >>= 1) {
    __syncthreads();
    if ((int)threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  __syncthreads();
  if ((int)threadIdx.x < columns) {
    y[threadIdx.x] = threadIdx.x == 0 ? (float)(sums[0] + (before ? (double)*before : 0.0)) : 0.0f;
  }
}
`;

/** One launch over all pieces, and one more for each chain of nodes: of a chain only the last sum is written. */
function group(nodes: readonly CudaNode[]): CudaLaunch[] {
  const { table, pieces } = pieceTable(
    nodes.map((node) => ({ buffers: [node.weight('x')] })),
    PIECE,
  );
  const { scratch } = nodes[0]!;
  const launches: CudaLaunch[] = [
    { kind: 'kernel', source: SOURCE, entry: 'square_sum', grid: [pieces], block: 256, args: [{ table }, scratch] },
  ];
  const beforeOf = (node: CudaNode): bigint => (node.has('before') ? node.buffer('before').pointer : 0n);
  let first = 0;
  for (let start = 0, end = 0; start < nodes.length; start = end) {
    for (end = start + 1; end < nodes.length && beforeOf(nodes[end]!) === nodes[end - 1]!.buffer('y').pointer;) end++;
    const count = nodes.slice(start, end).reduce((sum, node) => sum + pieceCount(node.weight('x'), PIECE), 0);
    const y = nodes[end - 1]!.buffer('y');
    launches.push({
      kind: 'kernel',
      source: SOURCE,
      entry: 'total',
      grid: [1],
      block: 512,
      args: [scratch + BigInt(4 * first), i32(count), beforeOf(nodes[start]!), y.pointer, i32(paddedColumns(y.width))],
    });
    first += count;
  }
  return launches;
}

/** A float for every piece. */
function groupScratchBytes(nodes: readonly CudaNode[]): number {
  return 4 * nodes.reduce((sum, node) => sum + pieceCount(node.weight('x'), PIECE), 0);
}

export const squareSumCuda: CudaKernel = {
  wide: ['y'],
  scratchBytes: (node) => groupScratchBytes([node]),
  launches: (node) => group([node]),
  group,
  groupScratchBytes,
};
