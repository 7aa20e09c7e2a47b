import { type CpuKernel, call, f32 } from '../cpu-kernel.ts';

export const addNormCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    const residual = node.buffer('residual');
    const sum = node.buffer('sum');
    const y = node.buffer('y');
    return [
      call('norm', {
        x: x.pointer,
        xStride: x.stride,
        residual: residual.pointer,
        residualStride: residual.stride,
        sum: sum.pointer,
        sumStride: sum.stride,
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
