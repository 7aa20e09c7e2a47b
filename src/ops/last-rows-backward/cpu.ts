import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const lastRowsBackwardCpu: CpuKernel = {
  calls(node) {
    const dx = node.buffer('dx');
    return [
      call('last_rows_backward', {
        ...rowOperands(node, 'dy', 'dx'),
        lengths: node.has('lengths') ? node.buffer('lengths').pointer : 0,
        rows: dx.rows,
        length: dx.shape[1]!,
        count: node.buffer('dy').shape[1]!,
        width: dx.width,
      }),
    ];
  },
};
