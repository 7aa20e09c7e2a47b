/** CUDA launch of the causal convolution: one kernel for sequences, one for single steps. */

import { segmentColumns } from '../../graph/graph.ts';
import {
  type CudaArgument,
  type CudaKernel,
  type CudaNode,
  defines,
  i32,
  parameterOperand,
  rowOperand,
  typeOf,
} from '../cuda-kernel.ts';
import { PACKED_SOURCE, SIGMOID_SOURCE } from '../cuda-rows.ts';
import { segmentArguments, segmentDefines } from './cuda-segments.ts';
import { SEQUENCE_SOURCE, STEP_SOURCE, TAPS_SOURCE } from './cuda-source.ts';

const BLOCK = 128;

/** Steps of a thread: as many as leave each multiprocessor 256 threads; what a thread needs beside them is loaded once. */
function stepsOf({ multiprocessors }: CudaNode, vectors: number, batch: number, length: number): number {
  return [32, 16, 8].find((steps) => vectors * batch * Math.ceil(length / steps) >= 256 * multiprocessors) ?? 4;
}

const pointerOf = (node: CudaNode, name: string): bigint => (node.has(name) ? node.buffer(name).pointer : 0n);

export const conv1dSiluCuda: CudaKernel = {
  launches(node) {
    const weight = node.weight('weight');
    const state = node.has('state') ? node.state('state') : undefined;
    const segments = node.segments('segments');
    const batch = node.number('batch');
    const length = node.number('length');
    const { total } = segmentColumns(segments);
    const steps = stepsOf(node, total / 4, batch, length);
    const pieces = Math.ceil(length / steps);
    const values = {
      X: typeOf(node, 'x'),
      Y: typeOf(node, 'y'),
      TAPS: weight.shape[2]!,
      FAST: node.activation === 'f32' ? 0 : 1,
      ...segmentDefines(segments.length),
    };
    const operands: CudaArgument[] = [
      ...rowOperand(node, 'x'),
      ...rowOperand(node, 'y'),
      weight.pointer,
      parameterOperand(node, 'bias'),
      state ? state.slotTable : 0n,
      BigInt(state?.offset ?? 0),
      pointerOf(node, 'slots'),
      pointerOf(node, 'lengths'),
      i32(weight.shape[0]!),
    ];
    if (length === 1) {
      return [
        {
          kind: 'kernel',
          source: defines(values) + SIGMOID_SOURCE + STEP_SOURCE,
          entry: 'conv1d_silu_step',
          grid: [Math.ceil(total / BLOCK), batch],
          block: BLOCK,
          args: [...operands, i32(total), ...segmentArguments(segments)],
        },
      ];
    }
    return [
      {
        kind: 'kernel',
        source:
          defines({ ...values, AHEAD: Math.min(steps, node.activation === 'f32' ? 4 : 8) }) +
          PACKED_SOURCE +
          SIGMOID_SOURCE +
          TAPS_SOURCE +
          SEQUENCE_SOURCE,
        entry: 'conv1d_silu',
        grid: [Math.ceil(((total / 4) * batch * pieces) / BLOCK)],
        block: BLOCK,
        args: [...operands, i32(batch), i32(length), i32(pieces), i32(steps), i32(total), ...segmentArguments(segments)],
      },
    ];
  },
};
