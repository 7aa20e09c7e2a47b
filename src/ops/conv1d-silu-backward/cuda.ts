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

/** Pieces of about 32 steps, or fewer while that gives each multiprocessor less than two blocks. */
function piecesOf(node: CudaNode): Pieces {
  const { total } = segmentColumns(node.segments('segments'));
  const taps = node.weight('weight').shape[2]!;
  const batch = node.number('batch');
  const length = node.number('length');
  const blocksOf = (steps: number): number => Math.ceil((batch * Math.ceil(length / steps)) / BLOCK_PIECES);
  const enough = (steps: number): boolean => blocksOf(steps) * Math.ceil(total / BLOCK_COLUMNS) >= 2 * node.multiprocessors;
  // Whole batches of four steps with the TAPS - 1 beyond the end.
  const steps = ([36, 20].find((reach) => enough(reach - taps + 1)) ?? 12) - taps + 1;
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
