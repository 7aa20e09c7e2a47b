import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const poolBackwardCpu: CpuKernel = {
  calls(node) {
    const { shape, width } = node.buffer('dx');
    const sizes = { batch: shape[0]!, tokens: shape[1]!, width, average: node.flag('average') ? 1 : 0 };
    return [call('pool_backward', { ...rowOperands(node, 'dy', 'dx'), ...sizes })];
  },
};
