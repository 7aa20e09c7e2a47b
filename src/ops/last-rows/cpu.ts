import { type CpuKernel, call } from '../cpu-kernel.ts';

export const lastRowsCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    const y = node.buffer('y');
    return [
      call('last_rows', {
        x: x.pointer,
        xStride: x.stride,
        y: y.pointer,
        yStride: y.stride,
        lengths: node.has('lengths') ? node.buffer('lengths').pointer : 0,
        batch: x.shape[0]!,
        length: x.shape[1]!,
        count: node.number('count'),
        width: x.width,
      }),
    ];
  },
};
