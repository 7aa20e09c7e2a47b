import { type CpuKernel, call, f32 } from '../cpu-kernel.ts';

export const normCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    const y = node.buffer('y');
    return [
      call('norm', {
        x: x.pointer,
        xStride: x.stride,
        residual: 0,
        residualStride: 0,
        sum: 0,
        sumStride: 0,
        y: y.pointer,
        yStride: y.stride,
        weight: node.weight('weight').pointer,
        bias: node.has('bias') ? node.weight('bias').pointer : 0,
        rows: x.rows,
        width: x.width,
        center: node.flag('center') ? 1 : 0,
        eps: f32(node.number('eps')),
      }),
    ];
  },
};
