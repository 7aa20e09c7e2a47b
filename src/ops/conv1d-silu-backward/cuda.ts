/** CUDA launches of the convolution's gradient: dx and sums for each block, then these added to the parameters'. */

import { segmentColumns } from '../../graph/graph.ts';
import { segmentArguments, segmentDefines } from '../conv1d-silu/cuda-segments.ts';
import { TAPS_SOURCE } from '../conv1d-silu/cuda-source.ts';
import { type CudaKernel, type CudaNode, defines, i32, parameterOperand, rowOperand, typeOf } from '../cuda-kernel.ts';
import { PACKED_SOURCE, PARTIAL_SUM_BLOCK, PARTIAL_SUM_SOURCE, SIGMOID_SOURCE } from '../cuda-rows.ts';
import { BACKWARD_SOURCE, BACKWARD_SUMS_SOURCE } from './cuda-source.ts';

/** Warps of a block, one for each of its pieces of sequences, and columns of a block. */
const BLOCK_PIECES = 8;
const BLOCK_COLUMNS = 128;

interface Pieces {
  readonly total: number;
  readonly taps: number;
  /** Steps of a piece, and pieces of a sequence. */
  readonly steps: number;
  readonly pieces: number;
  /** Blocks over the pieces of all sequences. */
  readonly blocks: number;
}

/** What a piece costs beside its steps, in steps; and blocks of a multiprocessor. */
const START_STEPS = 8;
const RESIDENT = 2;

/** The steps of a piece that let the launch end soonest: few beyond the pieces' ends, and full rounds of blocks. */
function piecesOf(node: CudaNode): Pieces {
  const { total } = segmentColumns(node.segments('segments'));
  const taps = node.weight('weight').shape[2]!;
  const batch = node.number('batch');
  const length = node.number('length');
  const blocksOf = (steps: number): number => Math.ceil((batch * Math.ceil(length / steps)) / BLOCK_PIECES);
  const resident = RESIDENT * node.multiprocessors;
  const rounds = (steps: number): number => Math.ceil((blocksOf(steps) * Math.ceil(total / BLOCK_COLUMNS)) / resident);
  let best = { steps: 0, cost: Infinity };
  // Whole batches of four steps with the taps - 1 beyond the end.
  for (let reach = 12; reach <= 72; reach += 4) {
    const cost = rounds(reach - taps + 1) * (reach + START_STEPS);
    if (cost < best.cost) best = { steps: reach - taps + 1, cost };
  }
  const { steps } = best;
  return { total, taps, steps, pieces: Math.ceil(length / steps), blocks: blocksOf(steps) };
}

const isTrained = (node: CudaNode): boolean => node.has('dWeight') || node.has('dBias');

export const conv1dSiluBackwardCuda: CudaKernel = {
  scratchBytes(node) {
    const { total, taps, blocks } = piecesOf(node);
    return isTrained(node) ? 4 * blocks * (taps + 1) * total : 0;
  },
  launches(node) {
    const { total, taps, steps, pieces, blocks } = piecesOf(node);
    const segments = node.segments('segments');
    const segmentValues = { TAPS: taps, ...segmentDefines(segments.length) };
    const values = {
      ...segmentValues,
      X: typeOf(node, 'x'),
      DY: typeOf(node, 'dy'),
      DX: typeOf(node, 'dx'),
      AHEAD: node.activation === 'f32' ? 2 : 4,
      TRAINED: isTrained(node) ? 1 : 0,
      FAST: node.activation === 'f32' ? 0 : 1,
    };
    return [
      {
        kind: 'kernel',
        source: defines(values) + PACKED_SOURCE + SIGMOID_SOURCE + TAPS_SOURCE + BACKWARD_SOURCE,
        entry: 'conv1d_silu_backward',
        grid: [Math.ceil(total / BLOCK_COLUMNS), blocks],
        block: 32 * BLOCK_PIECES,
        args: [
          ...['x', 'dy', 'dx'].flatMap((name) => rowOperand(node, name)),
          node.weight('weight').pointer,
          parameterOperand(node, 'bias'),
          node.scratch,
          i32(node.number('batch')),
          i32(node.number('length')),
          i32(pieces),
          i32(steps),
          i32(total),
          ...segmentArguments(segments),
        ],
      },
      ...(isTrained(node)
        ? [
            {
              kind: 'kernel' as const,
              source: defines(segmentValues) + PARTIAL_SUM_SOURCE + BACKWARD_SUMS_SOURCE,
              entry: 'conv1d_silu_backward_sums',
              grid: [Math.ceil(total / 32), taps + 1] as const,
              block: PARTIAL_SUM_BLOCK,
              args: [
                node.scratch,
                i32(blocks),
                parameterOperand(node, 'dWeight'),
                parameterOperand(node, 'dBias'),
                i32(total),
                ...segmentArguments(segments),
              ],
            },
          ]
        : []),
    ];
  },
};
