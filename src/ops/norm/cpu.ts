import { type CpuKernel, call, f32, rowOperands, vectorOperand } from '../cpu-kernel.ts';

/** Serves `norm`, which has no residual and no sum, and `add_norm`. */
export const normCpu: CpuKernel = {
  calls(node) {
    const x = node.buffer('x');
    return [
      call('norm', {
        ...rowOperands(node, 'x', 'residual', 'sum', 'y'),
        weight: node.weight('weight').pointer,
        bias: vectorOperand(node, 'bias'),
        rows: x.rows,
        width: x.width,
        center: node.flag('center') ? 1 : 0,
        eps: f32(node.number('eps')),
      }),
    ];
  },
};
