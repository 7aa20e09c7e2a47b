import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const patchifyBackwardCpu: CpuKernel = {
  calls(node) {
    const [batch, channels, height, width] = node.buffer('dx').shape as [number, number, number, number];
    const sizes = { batch, channels, height, width, patchSize: node.number('patchSize') };
    return [call('patchify_backward', { ...rowOperands(node, 'dx', 'dy'), ...sizes })];
  },
};
