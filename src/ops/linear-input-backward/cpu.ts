import { type Segment, paddedColumns, segmentColumns } from '../../graph/graph.ts';
import type { CpuCall, CpuKernel, CpuNode, CpuWeight } from '../cpu-kernel.ts';
import { weightArguments } from '../linear/cpu.ts';
import { joinedSegments, threadGrid } from './plan.ts';

/** Columns that the kernel computes at once. */
const PANEL = 8;
/** Rows of the weight that are packed together: a panel of 16 KB stays in the first cache while rows of dy pass. */
const BLOCK_DEPTH = 512;
/** Rows of dy that are packed together: 256 KB, in the second cache. */
const BLOCK_ROWS = 128;
/** Columns of the weight that are packed together: 1.5 MB. */
const BLOCK_PANELS = 96;
/** Packing the weight costs as much as multiplying so many rows with it. */
const PACK_ROWS = 8;
/** Smallest number of rows that a BLAS computes faster. */
const BLAS_ROWS = 32;

/** One product: rows of float32 at `pointer`, every `stride` floats. */
export interface InputBackwardOperands {
  readonly dy: { readonly pointer: number; readonly stride: number };
  readonly dx: { readonly pointer: number; readonly stride: number };
  readonly rows: number;
  readonly width: number;
  readonly weight: CpuWeight;
  readonly segments: readonly Segment[];
}

type Team = Pick<CpuNode, 'threads' | 'blas'>;

function planOf({ threads, blas }: Team, { rows, width, weight }: Pick<InputBackwardOperands, 'rows' | 'width' | 'weight'>) {
  const panels = Math.ceil(width / PANEL);
  const grid = threadGrid(
    threads,
    (rowParts, columnParts) => (4 * Math.ceil(Math.ceil(rows / 4) / rowParts) + PACK_ROWS) * Math.ceil(panels / columnParts),
  );
  const blockPanels = Math.min(BLOCK_PANELS, Math.ceil(paddedColumns(width) / PANEL / grid.columnParts));
  if (blas && weight.dtype === 'f32' && rows >= BLAS_ROWS)
    return { ...grid, kernel: 'linear_input_backward_blas', blockPanels, threadBytes: 0 };
  // Packed panels, packed rows of dy, and one row of a weight that is not float32.
  const threadBytes = 4 * (BLOCK_DEPTH * (PANEL * blockPanels + BLOCK_ROWS) + paddedColumns(width));
  return { ...grid, kernel: 'linear_input_backward', blockPanels, threadBytes };
}

/** Bytes of scratch that `inputBackwardCalls` needs. */
export function inputBackwardScratchBytes(
  team: Team,
  operands: Pick<InputBackwardOperands, 'rows' | 'width' | 'weight'>,
): number {
  return team.threads * planOf(team, operands).threadBytes;
}

/** The calls that compute one product. */
export function inputBackwardCalls(team: Team, scratch: number, operands: InputBackwardOperands): readonly CpuCall[] {
  const { dy, dx, rows, width, weight, segments } = operands;
  const { kernel, threadBytes, rowParts, columnParts, blockPanels } = planOf(team, operands);
  const pieces = joinedSegments(segments, segmentColumns(segments).columns);
  const head = {
    dy: dy.pointer,
    dyStride: dy.stride,
    dx: dx.pointer,
    dxStride: dx.stride,
    rows,
    width,
    weight: weight.pointer,
    scales: weight.scales,
    ...weightArguments(weight),
    rowParts,
    columnParts,
    blockDepth: BLOCK_DEPTH,
    blockRows: BLOCK_ROWS,
    blockPanels,
    scratch,
    scratchBytes: threadBytes,
    pieces: pieces.length,
  };
  return [{ kernel, args: [...Object.values(head), ...pieces.flatMap(({ start, count, column }) => [start, count, column])] }];
}

export const linearInputBackwardCpu: CpuKernel = {
  scratchBytes(node) {
    return inputBackwardScratchBytes(node, {
      rows: node.buffer('dy').rows,
      width: node.number('width'),
      weight: node.weight('weight'),
    });
  },
  calls(node) {
    const dy = node.buffer('dy');
    return inputBackwardCalls(node, node.scratch, {
      dy,
      dx: node.buffer('dx'),
      rows: dy.rows,
      width: node.number('width'),
      weight: node.weight('weight'),
      segments: node.segments('segments'),
    });
  },
};
