import { type CpuKernel, call, rowOperands } from '../cpu-kernel.ts';

export const embeddingBackwardCpu: CpuKernel = {
  calls(node) {
    const dy = node.buffer('dy');
    const dWeight = node.weight('dWeight');
    return [
      call('embedding_backward', {
        ids: node.buffer('ids').pointer,
        ...rowOperands(node, 'dy'),
        dWeight: dWeight.pointer,
        dWeightStride: dWeight.stride,
        rows: dy.rows,
        width: dy.width,
        vocabulary: dWeight.shape[0]!,
      }),
    ];
  },
};
