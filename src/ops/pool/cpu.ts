import { type CpuKernel, call } from '../cpu-kernel.ts';

export const poolCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    const y = node.buffer('y');
    return [
      call('pool', {
        x: x.pointer,
        xStride: x.stride,
        y: y.pointer,
        yStride: y.stride,
        batch: x.shape[0]!,
        tokens: x.shape[1]!,
        width: x.width,
        average: node.flag('average') ? 1 : 0,
      }),
    ];
  },
};
