/** CPU calls of the convolution's gradient: one for dx and the threads' sums, one that adds these to the parameters'. */

import { segmentColumns } from '../../graph/graph.ts';
import { type CpuArgument, type CpuKernel, type CpuNode, rowOperands, vectorOperand } from '../cpu-kernel.ts';

/** Rows of sums: four taps and the bias; and floats of a thread's own memory, as in `kernel.as.ts`. */
const SUM_ROWS = 5;
const OWN_FLOATS = 4 * (64 + 4);

const totalOf = (node: Omit<CpuNode, 'scratch'>): number => segmentColumns(node.segments('segments')).total;

export const conv1dSiluBackwardCpu: CpuKernel = {
  scratchBytes: (node) => 4 * node.threads * (SUM_ROWS * totalOf(node) + OWN_FLOATS),
  calls(node) {
    const weight = node.weight('weight');
    const trained = node.has('dWeight') || node.has('dBias');
    const segments = node.segments('segments');
    const { columns, total } = segmentColumns(segments);
    const args: Record<string, CpuArgument> = {
      ...rowOperands(node, 'x', 'dy', 'dx'),
      weight: weight.pointer,
      weightStride: weight.stride,
      bias: vectorOperand(node, 'bias'),
      dWeight: vectorOperand(node, 'dWeight'),
      dWeightStride: node.has('dWeight') ? node.weight('dWeight').stride : 0,
      dBias: vectorOperand(node, 'dBias'),
      sums: node.scratch,
      batch: node.number('batch'),
      length: node.number('length'),
      taps: weight.shape[2]!,
      columns: total,
      segments: segments.length,
    };
    const list = segments.flatMap(({ start, count }, s) => [columns[s]!, start, count]);
    const words = [...Object.values(args), ...list];
    const first = { kernel: 'conv1d_silu_backward', args: words };
    return trained ? [first, { kernel: 'conv1d_silu_backward_sums', args: words }] : [first];
  },
};
