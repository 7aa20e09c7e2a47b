import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const gatedSiluCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    return [
      call('gated_silu', {
        ...rowOperands(node, 'x', 'z', 'y'),
        rows: x.rows,
        width: x.width,
      }),
    ];
  },
};
