import { paddedColumns } from '../../graph/graph.ts';
import { type CpuCall, type CpuKernel, call, f32, rowOperands, vectorOperand } from '../cpu-kernel.ts';

export const normBackwardCpu: CpuKernel = {
  /** Sums of dWeight and dBias, a row of each for every thread. */
  scratchBytes: (node) => 4 * 2 * node.threads * paddedColumns(node.buffer('x').width),
  calls(node) {
    const x = node.buffer('x');
    const rows = call('norm_backward', {
      ...rowOperands(node, 'x', 'dy', 'dSum', 'dx'),
      weight: node.weight('weight').pointer,
      sums: node.scratch,
      rows: x.rows,
      width: x.width,
      center: node.flag('center') ? 1 : 0,
      eps: f32(node.number('eps')),
    });
    const stride = paddedColumns(x.width);
    const sums = { count: node.threads, stride: 2 * stride, width: x.width };
    return [
      rows,
      ...addSums(vectorOperand(node, 'dWeight'), node.scratch, sums),
      ...addSums(vectorOperand(node, 'dBias'), node.scratch + 4 * stride, sums),
    ];
  },
};

/** Adds the threads' sums to a parameter's gradient; nothing where there is none. */
export function addSums(
  target: number,
  sums: number,
  { count, stride, width }: { count: number; stride: number; width: number },
): CpuCall[] {
  return target === 0 ? [] : [call('add_sums', { sums, count, stride, target, width })];
}
