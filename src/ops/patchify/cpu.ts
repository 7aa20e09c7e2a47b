import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const patchifyCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    const [batch, channels, height, width] = x.shape as [number, number, number, number];
    return [
      call('patchify', {
        ...rowOperands(node, 'x', 'y'),
        batch,
        channels,
        height,
        width,
        patchSize: node.number('patchSize'),
      }),
    ];
  },
};
