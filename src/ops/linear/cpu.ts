import { paddedColumns, segmentColumns } from '../../graph/graph.ts';
import type { Segment } from '../../graph/graph.ts';
import { type CpuCall, type CpuKernel, type CpuNode, type CpuWeight, type WeightDType } from '../cpu-kernel.ts';

/** The numbers that kernels know a weight's dtype by. */
const DTYPE_NUMBERS: Readonly<Record<WeightDType, number>> = { f32: 0, bf16: 1, f16: 2, i8: 3 };
const ELEMENT_BYTES: Readonly<Record<WeightDType, number>> = { f32: 4, bf16: 2, f16: 2, i8: 1 };

/** One product: rows of float32 at `pointer`, every `stride` floats. */
export interface LinearOperands {
  readonly x: { readonly pointer: number; readonly stride: number };
  readonly y: { readonly pointer: number; readonly stride: number };
  readonly rows: number;
  readonly k: number;
  readonly weight: CpuWeight;
  readonly bias: CpuWeight | undefined;
  readonly segments: readonly Segment[];
}

/** How kernels are told of a weight matrix: dtype, stride and int8 scales. */
export function weightArguments(weight: CpuWeight) {
  return {
    dtype: DTYPE_NUMBERS[weight.dtype],
    weightStride: weight.stride,
    groupSize: weight.groupSize,
    scaleGroups: weight.groupSize ? Math.ceil(weight.stride / weight.groupSize) : 0,
  };
}

export function linearScratchBytes(threads: number, k: number): number {
  return threads * 4 * paddedColumns(k);
}

/** The calls that compute one product; `scratch` has `linearScratchBytes`. */
export function linearCalls(_node: Pick<CpuNode, 'threads' | 'blas'>, scratch: number, operands: LinearOperands): readonly CpuCall[] {
  const { x, y, rows, k, weight, bias, segments } = operands;
  const { columns } = segmentColumns(segments);
  const head = {
    x: x.pointer,
    xStride: x.stride,
    rows,
    k: paddedColumns(k),
    y: y.pointer,
    yStride: y.stride,
    ...weightArguments(weight),
    scratch,
    scratchBytes: 4 * paddedColumns(k),
    segments: segments.length,
  };
  const tail = segments.flatMap(({ start, count }, i) => [
    weight.pointer + start * weight.stride * ELEMENT_BYTES[weight.dtype],
    weight.scales + 4 * start * head.scaleGroups,
    bias ? bias.pointer + 4 * start : 0,
    count,
    columns[i]!,
  ]);
  return [{ kernel: 'linear', args: [...Object.values(head), ...tail] }];
}

export const linearCpu: CpuKernel = {
  scratchBytes(node) {
    return linearScratchBytes(node.threads, node.buffer('x').width);
  },
  calls(node) {
    const x = node.buffer('x');
    return linearCalls(node, node.scratch, {
      x,
      y: node.buffer('y'),
      rows: x.rows,
      k: x.width,
      weight: node.weight('weight'),
      bias: node.has('bias') ? node.weight('bias') : undefined,
      segments: node.segments('segments'),
    });
  },
};
