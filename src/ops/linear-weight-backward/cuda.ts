/** The gradients of `linear` with respect to weight and bias on CUDA: float32 sums, added to the buffers. */

import { segmentColumns } from '../../graph/graph.ts';
import {
  type CudaBuffer,
  type CudaKernel,
  type CudaLaunch,
  type CudaNode,
  ELEMENT_BYTES,
  cType,
  defines,
  i32,
} from '../cuda-kernel.ts';
import { castBytes, castOperand, runsOf, weightProducts } from '../linear/cuda-products.ts';

const BIAS_SOURCE = String.raw`
/* partial[block y][column] = sum over the block's rows of dy[row][column]. dy: [rows][stride], count columns. */
extern "C" __global__ void sum_columns(const T_DY *dy, int stride, int rows, int count, float *partial) {
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= count) return;
  int each = (rows + gridDim.y - 1) / gridDim.y;
  int first = blockIdx.y * each;
  int end = min(rows, first + each);
  float sum = 0.0f;
  for (int row = first; row < end; row++) sum += to_float(dy[(i64)row * stride + column]);
  partial[(i64)blockIdx.y * count + column] = sum;
}

/* bias[column] += the partial sums in order. partial: [parts][count]. */
extern "C" __global__ void add_columns(const float *partial, int parts, int count, float *bias) {
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= count) return;
  float sum = 0.0f;
  for (int part = 0; part < parts; part++) sum += partial[(i64)part * count + column];
  bias[column] += sum;
}
`;

/** Rows are summed in so many parts at most. */
const MAX_PARTS = 64;
const ROWS_A_PART = 64;

function partsOf(rows: number): number {
  return Math.max(1, Math.min(MAX_PARTS, Math.ceil(rows / ROWS_A_PART)));
}

function biasLaunches(node: CudaNode, dy: CudaBuffer, scratch: bigint): CudaLaunch[] {
  if (!node.has('dBias')) return [];
  const segments = node.segments('segments');
  const { columns } = segmentColumns(segments);
  const bias = node.weight('dBias').pointer;
  const parts = partsOf(dy.rows);
  const source = defines({ T_DY: cType(dy.element) }) + BIAS_SOURCE;
  return segments.flatMap(({ start, count }, i): CudaLaunch[] => {
    const blocks = Math.ceil(count / 128);
    const from = dy.pointer + BigInt(columns[i]! * ELEMENT_BYTES[dy.element]);
    return [
      {
        kind: 'kernel',
        source,
        entry: 'sum_columns',
        grid: [blocks, parts],
        block: 128,
        args: [from, i32(dy.stride), i32(dy.rows), i32(count), scratch],
      },
      {
        kind: 'kernel',
        source,
        entry: 'add_columns',
        grid: [blocks],
        block: 128,
        args: [scratch, i32(parts), i32(count), bias + BigInt(4 * start)],
      },
    ];
  });
}

export const linearWeightBackwardCuda: CudaKernel = {
  scratchBytes(node) {
    const largest = Math.max(...node.segments('segments').map(({ count }) => count));
    const bias = node.has('dBias') ? 4 * partsOf(node.buffer('dy').rows) * largest : 0;
    return castBytes(node, 'x') + castBytes(node, 'dy') + bias;
  },
  launches(node) {
    const x = node.buffer('x');
    const dy = node.buffer('dy');
    const dyScratch = node.scratch + BigInt(castBytes(node, 'x'));
    const biasScratch = dyScratch + BigInt(castBytes(node, 'dy'));
    const bias = biasLaunches(node, dy, biasScratch);
    if (!node.has('dWeight')) return bias;
    const castX = castOperand(node, 'x', node.scratch);
    const castDy = castOperand(node, 'dy', dyScratch);
    const runs = runsOf(node.weight('dWeight'), node.segments('segments'));
    return [
      ...castX.launches,
      ...castDy.launches,
      ...weightProducts(castX.matrix, castDy.matrix, x.rows, x.width, runs),
      ...bias,
    ];
  },
};
