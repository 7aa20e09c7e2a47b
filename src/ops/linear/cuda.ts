/** `linear` on CUDA: few rows are read as fast as memory gives the weights, more go to cuBLASLt. */

import { paddedColumns, segmentColumns } from '../../graph/graph.ts';
import {
  type CudaKernel,
  type CudaLaunch,
  type CudaNode,
  type WeightRun,
  ELEMENT_BYTES,
  cType,
  defines,
  i32,
} from '../cuda-kernel.ts';
import { FEW_ROWS, FEW_ROWS_INT8, fewRowsLaunches } from './cuda-few-rows.ts';
import { castBytes, castOperand, forwardProducts } from './cuda-products.ts';
import { weightBytes, weightOperand } from './cuda-weight.ts';

const ROWS_SOURCE = String.raw`
/* y[row][first .. end) = 0: the columns between segments. y: [rows][stride]. */
extern "C" __global__ void zero_columns(T_Y *y, int stride, i64 rows, int first, int end) {
  int count = end - first;
  i64 total = rows * count;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    y[i / count * stride + first + (int)(i % count)] = from_float<T_Y>(0.0f);
  }
}

/* y[row][column(s) + i] += bias[start + i] for one segment. y: [rows][stride], count columns. */
extern "C" __global__ void add_bias(T_Y *y, int stride, i64 rows, const float *bias, int count) {
  i64 total = rows * count;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
    int column = (int)(i % count);
    T_Y *cell = y + i / count * stride + column;
    *cell = from_float<T_Y>(to_float(*cell) + bias[column]);
  }
}
`;

function readsFewRows(node: CudaNode): boolean {
  const { rows } = node.buffer('x');
  return rows <= FEW_ROWS || (node.weight('weight').element === 'i8' && rows <= FEW_ROWS_INT8);
}

/** Columns that pad segments are zero: products of packed rows write them, products of stored rows do not. */
function padLaunches(node: CudaNode, runs: readonly WeightRun[]): CudaLaunch[] {
  const y = node.buffer('y');
  const ends = [...runs.slice(1).map(({ column }) => column), paddedColumns(y.width)];
  return runs.flatMap(({ column, count }, i): CudaLaunch[] => {
    const [first, end] = [column + count, ends[i]!];
    if (first >= end) return [];
    return [
      {
        kind: 'kernel',
        source: defines({ T_Y: cType(y.element) }) + ROWS_SOURCE,
        entry: 'zero_columns',
        grid: [Math.max(1, Math.min(8 * node.multiprocessors, Math.ceil((y.rows * (end - first)) / 256)))],
        block: 256,
        args: [y.pointer, i32(y.stride), BigInt(y.rows), i32(first), i32(end)],
      },
    ];
  });
}

function biasLaunches(node: CudaNode): CudaLaunch[] {
  if (!node.has('bias')) return [];
  const y = node.buffer('y');
  const bias = node.weight('bias').pointer;
  const segments = node.segments('segments');
  const { columns } = segmentColumns(segments);
  return segments.map(({ start, count }, i) => ({
    kind: 'kernel',
    source: defines({ T_Y: cType(y.element) }) + ROWS_SOURCE,
    entry: 'add_bias',
    grid: [Math.max(1, Math.min(8 * node.multiprocessors, Math.ceil((y.rows * count) / 256)))],
    block: 256,
    args: [
      y.pointer + BigInt(columns[i]! * ELEMENT_BYTES[y.element]),
      i32(y.stride),
      BigInt(y.rows),
      bias + BigInt(4 * start),
      i32(count),
    ],
  }));
}

export const linearCuda: CudaKernel = {
  scratchBytes(node) {
    if (readsFewRows(node)) return 0;
    return castBytes(node, 'x') + weightBytes(node, 'weight', node.segments('segments'));
  },
  launches(node) {
    if (readsFewRows(node)) return fewRowsLaunches(node);
    const segments = node.segments('segments');
    const { rows, width } = node.buffer('x');
    const { matrix: x, launches: casts } = castOperand(node, 'x', node.scratch);
    const weight = weightOperand(node, 'weight', segments, node.scratch + BigInt(castBytes(node, 'x')));
    return [
      ...casts,
      ...weight.launches,
      ...forwardProducts(x, rows, width, weight.runs, node.buffer('y')),
      ...padLaunches(node, weight.runs),
      ...biasLaunches(node),
    ];
  },
};
