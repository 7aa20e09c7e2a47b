import { type CpuKernel, call } from '../cpu-kernel.ts';

export const visionTokensCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    const y = node.buffer('y');
    return [
      call('vision_tokens', {
        x: x.pointer,
        xStride: x.stride,
        classToken: node.weight('classToken').pointer,
        position: node.weight('position').pointer,
        y: y.pointer,
        yStride: y.stride,
        tokens: y.shape[1]!,
        rows: y.rows,
        width: y.width,
      }),
    ];
  },
};
