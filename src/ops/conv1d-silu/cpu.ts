/** CPU calls of the causal convolution: one, for all segments. */

import { segmentColumns } from '../../graph/graph.ts';
import type { CpuArgument, CpuKernel } from '../cpu-kernel.ts';

export const conv1dSiluCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    const y = node.buffer('y');
    const weight = node.weight('weight');
    const state = node.has('state') ? node.state('state') : undefined;
    const segments = node.segments('segments');
    const { columns, total } = segmentColumns(segments);
    const channels = weight.shape[0]!;
    const args: Record<string, CpuArgument> = {
      x: x.pointer,
      xStride: x.stride,
      y: y.pointer,
      yStride: y.stride,
      weight: weight.pointer,
      weightStride: weight.stride,
      bias: node.has('bias') ? node.weight('bias').pointer : 0,
      slotTable: state ? state.slotTable : 0,
      slots: node.has('slots') ? node.buffer('slots').pointer : 0,
      lengths: node.has('lengths') ? node.buffer('lengths').pointer : 0,
      stateOffset: state ? state.offset : 0,
      stateChannels: channels,
      batch: node.number('batch'),
      length: node.number('length'),
      taps: weight.shape[2]!,
      columns: total,
      segments: segments.length,
    };
    const list = segments.flatMap(({ start, count }, s) => [columns[s]!, start, count]);
    return [{ kernel: 'conv1d_silu', args: [...Object.values(args), ...list] }];
  },
};
