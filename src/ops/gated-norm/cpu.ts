import { type CpuKernel, call, f32 } from '../cpu-kernel.ts';

export const gatedNormCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    const z = node.buffer('z');
    const y = node.buffer('y');
    return [
      call('gated_norm', {
        x: x.pointer,
        xStride: x.stride,
        z: z.pointer,
        zStride: z.stride,
        y: y.pointer,
        yStride: y.stride,
        weight: node.weight('weight').pointer,
        rows: x.rows,
        width: x.width,
        normBeforeGate: node.flag('normBeforeGate') ? 1 : 0,
        eps: f32(node.number('eps')),
      }),
    ];
  },
};
