import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const poolCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    return [
      call('pool', {
        ...rowOperands(node, 'x', 'y'),
        batch: x.shape[0]!,
        tokens: x.shape[1]!,
        width: x.width,
        average: node.flag('average') ? 1 : 0,
      }),
    ];
  },
};
