import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const gatedSiluBackwardCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    return [call('gated_silu_backward', { ...rowOperands(node, 'x', 'z', 'dy', 'dx', 'dz'), rows: x.rows, width: x.width })];
  },
};
