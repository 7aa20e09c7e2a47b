import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const visionTokensCpu: CpuKernel = {
  calls(node) {
    const y = node.buffer('y');
    return [
      call('vision_tokens', {
        ...rowOperands(node, 'x'),
        classToken: node.weight('classToken').pointer,
        position: node.weight('position').pointer,
        ...rowOperands(node, 'y'),
        tokens: y.shape[1]!,
        rows: y.rows,
        width: y.width,
      }),
    ];
  },
};
