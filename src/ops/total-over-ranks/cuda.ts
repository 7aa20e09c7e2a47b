/** The sum of one number over the ranks, by NCCL; the padding, zeros on every rank, is summed with it. */

import { paddedColumns } from '../../graph/graph.ts';
import type { CudaKernel } from '../cuda-kernel.ts';

export const totalOverRanksCuda: CudaKernel = {
  wide: ['x', 'y'],
  launches(node) {
    const [x, y] = [node.buffer('x'), node.buffer('y')];
    return [{ kind: 'all-reduce', parts: [{ from: x.pointer, to: y.pointer, count: paddedColumns(x.width), root: -1 }] }];
  },
};
