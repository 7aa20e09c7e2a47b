import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const addCpu: CpuKernel = {
  calls(node) {
    const y = node.buffer('y');
    return [
      call('add', {
        ...rowOperands(node, 'a', 'b', 'y'),
        rows: y.rows,
        width: y.width,
      }),
    ];
  },
};
