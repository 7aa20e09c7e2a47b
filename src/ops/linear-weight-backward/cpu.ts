import { type Segment, paddedColumns, segmentColumns } from '../../graph/graph.ts';
import { type CpuCall, type CpuKernel, type CpuNode, type CpuWeight, vectorOperand } from '../cpu-kernel.ts';
import { joinedSegments, threadGrid } from '../linear-input-backward/plan.ts';

/** Rows and columns of dWeight that the kernel computes at once. */
const GROUP = 4;
const PANEL = 8;
/** Rows of x and dy that are packed together: a panel of x of 16 KB stays in the first cache while columns of dy pass. */
const BLOCK_DEPTH = 512;
/** Groups of columns of dy that are packed together: 256 KB, in the second cache. */
const BLOCK_GROUPS = 32;
/** Panels of x that are packed together: 1.5 MB. */
const BLOCK_PANELS = 96;
/** Packing a group of dy, or a panel of x, costs this part of a tile. */
const PACK_GROUP = 0.25;
const PACK_PANEL = 0.5;
/** Smallest number of rows that a BLAS computes faster. */
const BLAS_ROWS = 32;

/** One product: rows of float32 at `pointer`, every `stride` floats. */
export interface WeightBackwardOperands {
  readonly x: { readonly pointer: number; readonly stride: number };
  readonly dy: { readonly pointer: number; readonly stride: number };
  readonly rows: number;
  readonly width: number;
  readonly dWeight: CpuWeight | undefined;
  /** Address of the bias's gradient; 0 for none. */
  readonly dBias: number;
  readonly segments: readonly Segment[];
}

type Team = Pick<CpuNode, 'threads' | 'blas'>;

function planOf({ threads, blas }: Team, { rows, width, segments }: Pick<WeightBackwardOperands, 'rows' | 'width' | 'segments'>) {
  const panels = paddedColumns(width) / PANEL;
  const groups = segments.reduce((sum, { count }) => sum + Math.ceil(count / GROUP), 0);
  const grid = threadGrid(threads, (rowParts, columnParts) => {
    const [g, p] = [Math.ceil(groups / rowParts), Math.ceil(panels / columnParts)];
    return g * p + PACK_GROUP * g + PACK_PANEL * p;
  });
  const blockDepth = Math.min(rows, BLOCK_DEPTH);
  const blockPanels = Math.min(BLOCK_PANELS, Math.ceil(panels / grid.columnParts));
  const blas32 = blas && rows >= BLAS_ROWS;
  return {
    ...grid,
    kernel: blas32 ? 'linear_weight_backward_blas' : 'linear_weight_backward',
    blockDepth,
    blockPanels,
    threadBytes: blas32 ? 0 : 4 * blockDepth * (PANEL * blockPanels + GROUP * BLOCK_GROUPS),
  };
}

/** Bytes of scratch that `weightBackwardCalls` needs. */
export function weightBackwardScratchBytes(
  team: Team,
  operands: Pick<WeightBackwardOperands, 'rows' | 'width' | 'segments'>,
): number {
  return team.threads * planOf(team, operands).threadBytes;
}

/** The calls that add one product. */
export function weightBackwardCalls(team: Team, scratch: number, operands: WeightBackwardOperands): readonly CpuCall[] {
  const { x, dy, rows, width, dWeight, dBias, segments } = operands;
  const { kernel, threadBytes, rowParts, columnParts, blockDepth, blockPanels } = planOf(team, operands);
  const pieces = joinedSegments(segments, segmentColumns(segments).columns);
  const tail = pieces.flatMap(({ start, count, column }) => [start, count, column]);
  const biasCall = { kernel: 'linear_bias_backward', args: [dy.pointer, dy.stride, rows, dBias, pieces.length, ...tail] };
  const calls: CpuCall[] = dBias === 0 ? [] : [biasCall];
  if (!dWeight) return calls;
  const head = {
    x: x.pointer,
    xStride: x.stride,
    dy: dy.pointer,
    dyStride: dy.stride,
    rows,
    width,
    dWeight: dWeight.pointer,
    dWeightStride: dWeight.stride,
    rowParts,
    columnParts,
    blockDepth,
    blockGroups: BLOCK_GROUPS,
    blockPanels,
    scratch,
    scratchBytes: threadBytes,
    pieces: pieces.length,
  };
  return [...calls, { kernel, args: [...Object.values(head), ...tail] }];
}

export const linearWeightBackwardCpu: CpuKernel = {
  scratchBytes(node) {
    const { rows, width } = node.buffer('x');
    return weightBackwardScratchBytes(node, { rows, width, segments: node.segments('segments') });
  },
  calls(node) {
    const x = node.buffer('x');
    return weightBackwardCalls(node, node.scratch, {
      x,
      dy: node.buffer('dy'),
      rows: x.rows,
      width: x.width,
      dWeight: node.has('dWeight') ? node.weight('dWeight') : undefined,
      dBias: vectorOperand(node, 'dBias'),
      segments: node.segments('segments'),
    });
  },
};
