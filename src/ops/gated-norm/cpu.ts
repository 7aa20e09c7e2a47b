import { type CpuKernel, call, f32, rowOperands } from '../cpu-kernel.ts';

export const gatedNormCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    return [
      call('gated_norm', {
        ...rowOperands(node, 'x', 'z', 'y'),
        weight: node.weight('weight').pointer,
        rows: x.rows,
        width: x.width,
        normBeforeGate: node.flag('normBeforeGate') ? 1 : 0,
        eps: f32(node.number('eps')),
      }),
    ];
  },
};
