import { type CpuKernel, call, rowOperands, vectorOperand } from '../cpu-kernel.ts';

export const visionTokensBackwardCpu: CpuKernel = {
  calls(node) {
    const { shape, width } = node.buffer('dy');
    return [
      call('vision_tokens_backward', {
        ...rowOperands(node, 'dy', 'dx'),
        dClass: vectorOperand(node, 'dClass'),
        dPosition: vectorOperand(node, 'dPosition'),
        batch: shape[0]!,
        tokens: shape[1]!,
        width,
      }),
    ];
  },
};
