import { paddedColumns } from '../../graph/graph.ts';
import { type CpuKernel, call } from '../cpu-kernel.ts';
import { weightArguments } from '../linear/cpu.ts';

export const embeddingCpu: CpuKernel = {
  calls(node) {
    const ids = node.buffer('ids');
    const y = node.buffer('y');
    const weight = node.weight('weight');
    return [
      call('embedding', {
        ids: ids.pointer,
        count: y.rows,
        y: y.pointer,
        yStride: y.stride,
        weight: weight.pointer,
        scales: weight.scales,
        rows: weight.shape[0]!,
        width: paddedColumns(y.width),
        ...weightArguments(weight),
      }),
    ];
  },
};
