import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const lastRowsCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    return [
      call('last_rows', {
        ...rowOperands(node, 'x', 'y'),
        lengths: node.has('lengths') ? node.buffer('lengths').pointer : 0,
        batch: x.shape[0]!,
        length: x.shape[1]!,
        count: node.number('count'),
        width: x.width,
      }),
    ];
  },
};
