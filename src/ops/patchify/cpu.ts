import { type CpuKernel, call } from '../cpu-kernel.ts';

export const patchifyCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    const y = node.buffer('y');
    const [batch, channels, height, width] = x.shape as [number, number, number, number];
    return [
      call('patchify', {
        x: x.pointer,
        xStride: x.stride,
        y: y.pointer,
        yStride: y.stride,
        batch,
        channels,
        height,
        width,
        patchSize: node.number('patchSize'),
      }),
    ];
  },
};
