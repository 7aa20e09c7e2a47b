import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const softCrossEntropyCpu: CpuKernel = {
  calls(node) {
    const { rows, width } = node.buffer('logits');
    return [call('soft_cross_entropy', { ...rowOperands(node, 'logits', 'targets', 'scale', 'loss', 'dLogits'), rows, width })];
  },
};
