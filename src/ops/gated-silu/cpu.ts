import { type CpuKernel, call } from '../cpu-kernel.ts';

export const gatedSiluCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    const z = node.buffer('z');
    const y = node.buffer('y');
    return [
      call('gated_silu', {
        x: x.pointer,
        xStride: x.stride,
        z: z.pointer,
        zStride: z.stride,
        y: y.pointer,
        yStride: y.stride,
        rows: x.rows,
        width: x.width,
      }),
    ];
  },
};
