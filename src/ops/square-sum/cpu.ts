import { type CpuKernel, bufferFloats, call } from '../cpu-kernel.ts';

export const squareSumCpu: CpuKernel = {
  /** A float64 for every thread. */
  scratchBytes: ({ threads }) => 8 * threads,
  calls(node) {
    const x = node.weight('x');
    const before = node.has('before') ? node.buffer('before').pointer : 0;
    return [
      call('square_sum', { x: x.pointer, count: bufferFloats(x), sums: node.scratch }),
      call('square_sum_total', { sums: node.scratch, before, y: node.buffer('y').pointer }),
    ];
  },
};
