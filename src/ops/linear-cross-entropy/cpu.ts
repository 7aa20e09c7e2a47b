import { paddedColumns } from '../../graph/graph.ts';
import { type CpuCall, type CpuKernel, type CpuNode, call } from '../cpu-kernel.ts';
import { linearCalls, linearScratchBytes } from '../linear/cpu.ts';

/** Rows whose logits exist at once: enough to make packing the head's weight cheap, 25 MB at a vocabulary of 50,000. */
const CHUNK_ROWS = 128;

function logitsBytes(node: Omit<CpuNode, 'scratch'>): number {
  const { rows } = node.buffer('x');
  return 4 * Math.min(rows, CHUNK_ROWS) * paddedColumns(node.weight('weight').shape[0]!);
}

export const linearCrossEntropyCpu: CpuKernel = {
  scratchBytes(node) {
    const { rows, width: k } = node.buffer('x');
    const weight = node.weight('weight');
    const segments = [{ start: 0, count: weight.shape[0]! }];
    // The last chunk has fewer rows, for which another kernel may be better.
    const chunks = [Math.min(rows, CHUNK_ROWS), rows % CHUNK_ROWS || CHUNK_ROWS];
    return logitsBytes(node) + Math.max(...chunks.map((count) => linearScratchBytes(node, { rows: count, k, weight, segments })));
  },
  calls(node) {
    const x = node.buffer('x');
    const loss = node.buffer('loss');
    const targets = node.buffer('targets');
    const weight = node.weight('weight');
    const vocabulary = weight.shape[0]!;
    const logits = { pointer: node.scratch, stride: paddedColumns(vocabulary) };
    const calls: CpuCall[] = [];
    for (let first = 0; first < x.rows; first += CHUNK_ROWS) {
      const rows = Math.min(CHUNK_ROWS, x.rows - first);
      const product = linearCalls(node, node.scratch + logitsBytes(node), {
        x: { pointer: x.pointer + 4 * first * x.stride, stride: x.stride },
        y: logits,
        rows,
        k: x.width,
        weight,
        bias: undefined,
        segments: [{ start: 0, count: vocabulary }],
      });
      const losses = call('cross_entropy_rows', {
        logits: logits.pointer,
        logitsStride: logits.stride,
        rows,
        vocabulary,
        targets: targets.pointer + 4 * first,
        loss: loss.pointer + 4 * first * loss.stride,
        lossStride: loss.stride,
      });
      calls.push(...product, losses);
    }
    return calls;
  },
};
