/**
 * The products of `linear` and its gradients as cuBLASLt sees them: one per run of weight rows that lie together in the
 * weight and in the output, equal neighbours as one batch.
 */

import { type Segment, paddedColumns, segmentColumns } from '../../graph/graph.ts';
import {
  type CudaBuffer,
  type CudaElement,
  type CudaLaunch,
  type CudaNode,
  type GemmLaunch,
  type GemmOperand,
  type WeightRun,
  ELEMENT_BYTES,
  cType,
  defines,
  i32,
} from '../cuda-kernel.ts';

/** Rows of a stored matrix that lie together in it and in the output. */
export function runsOf(
  weight: { readonly pointer: bigint; readonly element: CudaElement; readonly stride: number },
  segments: readonly Segment[],
): WeightRun[] {
  const { columns } = segmentColumns(segments);
  const runs: { start: number; column: number; count: number }[] = [];
  for (const [i, { start, count }] of segments.entries()) {
    const last = runs.at(-1);
    const follows = last && last.start + last.count === start && last.column + last.count === columns[i];
    if (follows) last.count += count;
    else runs.push({ start, column: columns[i]!, count });
  }
  return runs.map(({ start, column, count }) => ({
    pointer: weight.pointer + BigInt(start * weight.stride * ELEMENT_BYTES[weight.element]),
    element: weight.element,
    stride: weight.stride,
    column,
    count,
  }));
}

/** Runs of one size at equal distances, which one batched product takes. */
interface RunBatch {
  readonly first: WeightRun;
  readonly batch: number;
  /** Elements of the weight, and columns of the output, from one run to the next. */
  readonly weightStep: number;
  readonly columnStep: number;
}

function batchesOf(runs: readonly WeightRun[]): RunBatch[] {
  const batches: RunBatch[] = [];
  for (const run of runs) {
    const last = batches.at(-1);
    if (last?.batch === 1 && last.first.count === run.count) {
      const weightStep = Number(run.pointer - last.first.pointer) / ELEMENT_BYTES[run.element];
      // The library takes positive distances.
      if (weightStep > 0) {
        batches[batches.length - 1] = { ...last, batch: 2, weightStep, columnStep: run.column - last.first.column };
        continue;
      }
    }
    batches.push({ first: run, batch: 1, weightStep: 0, columnStep: 0 });
  }
  return batches;
}

type Matrix = Pick<CudaBuffer, 'pointer' | 'element' | 'stride'>;

function at({ pointer, element, stride }: Matrix, column: number): GemmOperand {
  return { pointer: pointer + BigInt(column * ELEMENT_BYTES[element]), element, stride };
}

/** An inner length that the tensor cores read in whole vectors: the columns that pad both operands are zero in one. */
function vectorLength(k: number): number {
  return k % 8 === 0 ? k : paddedColumns(k);
}

/** y[:, columns of the runs] = x weight^T. x: [rows][k], zero-padded columns. */
export function forwardProducts(x: Matrix, rows: number, k: number, runs: readonly WeightRun[], y: Matrix): GemmLaunch[] {
  return batchesOf(runs).map(({ first, batch, weightStep, columnStep }) => ({
    kind: 'gemm',
    m: rows,
    n: first.count,
    k: vectorLength(k),
    a: { ...at(x, 0), batchStride: 0 },
    b: { pointer: first.pointer, element: first.element, stride: first.stride, transposed: true, batchStride: weightStep },
    d: { ...at(y, first.column), batchStride: columnStep },
    batch,
  }));
}

/** dx = sum over the runs of dy[:, columns of the run] weight. dx: [rows][k]. */
export function inputProducts(dy: Matrix, rows: number, k: number, runs: readonly WeightRun[], dx: Matrix): GemmLaunch[] {
  return runs.map(({ pointer, element, stride, column, count }, i) => ({
    kind: 'gemm',
    m: rows,
    n: k,
    k: count,
    a: at(dy, column),
    b: { pointer, element, stride },
    d: at(dx, 0),
    accumulate: i > 0,
  }));
}

/** dWeight[rows of the runs] += dy[:, columns of the run]^T x. x: [rows][k]. */
export function weightProducts(x: Matrix, dy: Matrix, rows: number, k: number, runs: readonly WeightRun[]): GemmLaunch[] {
  return batchesOf(runs).map(({ first, batch, weightStep, columnStep }) => ({
    kind: 'gemm',
    m: first.count,
    n: k,
    k: rows,
    a: { ...at(dy, first.column), transposed: true, batchStride: columnStep },
    b: { ...at(x, 0), batchStride: 0 },
    d: { pointer: first.pointer, element: first.element, stride: first.stride, batchStride: weightStep },
    accumulate: true,
    batch,
  }));
}

const CAST_SOURCE = String.raw`
/* to[row][0 .. stride) = from[row][0 .. width), zeros behind; 8 columns a thread. */
extern "C" __global__ void cast_rows(const T_FROM *from, int from_stride, T_TO *to, int to_stride, i64 rows, int width) {
  int groups = to_stride / 8;
  i64 count = rows * groups;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    i64 row = i / groups;
    int column = (int)(i % groups) * 8;
    const T_FROM *source = from + row * from_stride;
    float v[8];
    if (column + 8 <= width) load_row(v, source + column);
    else for (int j = 0; j < 8; j++) v[j] = column + j < width ? to_float(source[column + j]) : 0.0f;
    store_row(to + row * to_stride + column, v);
  }
}
`;

/** What an operand of a product needs in scratch to be in the activations' element; 0 when it is already. */
export function castBytes(node: CudaNode, name: string): number {
  const { element, rows, width } = node.buffer(name);
  if (element === node.activation) return 0;
  return Math.ceil((rows * paddedColumns(width) * ELEMENT_BYTES[node.activation]) / 256) * 256;
}

/** The operand in the activations' element: itself, or a copy in scratch and the launch that makes it. */
export function castOperand(
  node: CudaNode,
  name: string,
  scratch: bigint,
): { readonly matrix: Matrix; readonly launches: readonly CudaLaunch[] } {
  const from = node.buffer(name);
  if (from.element === node.activation) return { matrix: from, launches: [] };
  const stride = paddedColumns(from.width);
  const matrix = { pointer: scratch, element: node.activation, stride };
  const launch: CudaLaunch = {
    kind: 'kernel',
    source: defines({ T_FROM: cType(from.element), T_TO: cType(node.activation) }) + CAST_SOURCE,
    entry: 'cast_rows',
    grid: [Math.max(1, Math.min(8 * node.multiprocessors, Math.ceil((from.rows * stride) / 8 / 256)))],
    block: 256,
    args: [from.pointer, i32(from.stride), scratch, i32(stride), BigInt(from.rows), i32(from.width)],
  };
  return { matrix, launches: [launch] };
}
