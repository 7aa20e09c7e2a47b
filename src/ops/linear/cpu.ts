import { type Segment, paddedColumns, segmentColumns } from '../../graph/graph.ts';
import { MatMambaError } from '../../errors.ts';
import type { CpuCall, CpuKernel, CpuNode, CpuWeight, WeightDType } from '../cpu-kernel.ts';
import { type LinearPlan, planBytes, planLinear } from './plan.ts';

/** The numbers that kernels know a weight's dtype by, as in `arguments.as.ts`. */
const DTYPE_NUMBERS: Readonly<Record<WeightDType, number>> = { f32: 0, bf16: 1, f16: 2, i8: 3 };
/** Rows of a stored panel of weights that are not float32. */
const PANEL_ROWS = 8;
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

type Team = Pick<CpuNode, 'threads' | 'blas'>;

/** How kernels are told of a weight matrix: dtype, stride and int8 scales. */
export function weightArguments(weight: CpuWeight) {
  return {
    dtype: DTYPE_NUMBERS[weight.dtype],
    weightStride: weight.stride,
    groupSize: weight.groupSize,
    scaleGroups: weight.groupSize ? Math.ceil(weight.stride / weight.groupSize) : 0,
  };
}

function planOf(
  { threads, blas }: Team,
  { rows, k, weight, segments }: Pick<LinearOperands, 'rows' | 'k' | 'weight' | 'segments'>,
): LinearPlan {
  const counts = segments.map(({ count }) => count);
  return planLinear({ rows, k, counts, dtype: weight.dtype, groupSize: weight.groupSize }, threads, blas);
}

/** Bytes of scratch that `linearCalls` needs. */
export function linearScratchBytes(team: Team, operands: Pick<LinearOperands, 'rows' | 'k' | 'weight' | 'segments'>): number {
  return planBytes(planOf(team, operands), team.threads);
}

/** The calls that compute one product. */
export function linearCalls(team: Team, scratch: number, operands: LinearOperands): readonly CpuCall[] {
  const { x, y, rows, k, weight, bias, segments } = operands;
  const { columns } = segmentColumns(segments);
  const { kernel, threadBytes, quantisedBytes, ...plan } = planOf(team, operands);
  const quantised = scratch + team.threads * threadBytes;
  const head = {
    x: x.pointer,
    xStride: x.stride,
    rows,
    k: paddedColumns(k),
    y: y.pointer,
    yStride: y.stride,
    ...weightArguments(weight),
    rowParts: plan.rowParts,
    columnParts: plan.columnParts,
    blockRows: plan.blockRows,
    blockPanels: plan.blockPanels,
    scratch,
    scratchBytes: threadBytes,
    quantised,
    quantisedScales: quantised + 2 * rows * paddedColumns(k),
    quantisedRange: plan.quantisedRange,
    segments: segments.length,
  };
  if (weight.dtype !== 'f32' && segments.some(({ start }) => start % PANEL_ROWS !== 0)) {
    throw new MatMambaError('INTERNAL', `a segment of a ${weight.dtype} weight must start at a multiple of ${PANEL_ROWS} rows`);
  }
  const tail = segments.flatMap(({ start, count }, i) => [
    weight.pointer + start * weight.stride * ELEMENT_BYTES[weight.dtype],
    weight.scales + 4 * start * head.scaleGroups,
    bias ? bias.pointer + 4 * start : 0,
    count,
    columns[i]!,
  ]);
  const args = [...Object.values(head), ...tail];
  return quantisedBytes > 0
    ? [
        { kernel: 'linear_quantise', args },
        { kernel, args },
      ]
    : [{ kernel, args }];
}

export const linearCpu: CpuKernel = {
  scratchBytes(node) {
    const { rows, width } = node.buffer('x');
    return linearScratchBytes(node, { rows, k: width, weight: node.weight('weight'), segments: node.segments('segments') });
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
