import { paddedColumns } from '../../graph/graph.ts';
import { type CpuKernel, call, f32, rowOperands, vectorOperand } from '../cpu-kernel.ts';
import { addSums } from '../norm-backward/cpu.ts';

export const gatedNormBackwardCpu: CpuKernel = {
  /** A row of dWeight sums for every thread. */
  scratchBytes: (node) => 4 * node.threads * paddedColumns(node.buffer('x').width),
  calls(node) {
    const x = node.buffer('x');
    const stride = paddedColumns(x.width);
    const rows = call('gated_norm_backward', {
      ...rowOperands(node, 'x', 'z', 'dy', 'dx', 'dz'),
      weight: node.weight('weight').pointer,
      sums: node.scratch,
      rows: x.rows,
      width: x.width,
      normBeforeGate: node.flag('normBeforeGate') ? 1 : 0,
      eps: f32(node.number('eps')),
    });
    return [rows, ...addSums(vectorOperand(node, 'dWeight'), node.scratch, { count: node.threads, stride, width: x.width })];
  },
};
