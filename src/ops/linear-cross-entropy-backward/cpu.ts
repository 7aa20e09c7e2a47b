import { paddedColumns } from '../../graph/graph.ts';
import { type CpuKernel, type CpuNode, call } from '../cpu-kernel.ts';
import { inputBackwardCalls, inputBackwardScratchBytes } from '../linear-input-backward/cpu.ts';
import { weightBackwardCalls, weightBackwardScratchBytes } from '../linear-weight-backward/cpu.ts';
import { linearCalls, linearScratchBytes } from '../linear/cpu.ts';

/** Rows whose logits exist at once. */
const CHUNK_ROWS = 256;

type Unplaced = Omit<CpuNode, 'scratch'>;

function shapeOf(node: Unplaced) {
  const { rows, width } = node.buffer('x');
  const weight = node.weight('weight');
  const vocabulary = weight.shape[0]!;
  const chunkRows = Math.min(rows, CHUNK_ROWS);
  const stride = paddedColumns(vocabulary);
  return { rows, width, weight, vocabulary, chunkRows, stride, logitsBytes: 4 * chunkRows * stride, segments: [{ start: 0, count: vocabulary }] };
}

export const linearCrossEntropyBackwardCpu: CpuKernel = {
  scratchBytes(node) {
    const { rows, width, weight, chunkRows, logitsBytes, segments } = shapeOf(node);
    // The last chunk has fewer rows, for which other kernels may be better.
    const needs = [chunkRows, rows % chunkRows || chunkRows].flatMap((count) => [
      linearScratchBytes(node, { rows: count, k: width, weight, segments }),
      inputBackwardScratchBytes(node, { rows: count, width, weight }),
      weightBackwardScratchBytes(node, { rows: count, width, segments }),
    ]);
    return logitsBytes + Math.max(...needs);
  },
  calls(node) {
    const { rows, width, weight, vocabulary, chunkRows, stride, logitsBytes, segments } = shapeOf(node);
    const operands = { x: node.buffer('x'), loss: node.buffer('loss'), dLoss: node.buffer('dLoss'), dx: node.buffer('dx') };
    const targets = node.buffer('targets').pointer;
    const dWeight = node.has('dWeight') ? node.weight('dWeight') : undefined;
    const logits = { pointer: node.scratch, stride };
    const scratch = node.scratch + logitsBytes;
    const chunks = Array.from({ length: Math.ceil(rows / chunkRows) }, (_, i) => i * chunkRows);
    return chunks.flatMap((first) => {
      const count = Math.min(chunkRows, rows - first);
      const from = ({ pointer, stride }: { pointer: number; stride: number }) => ({ pointer: pointer + 4 * first * stride, stride });
      const [x, loss, dLoss, dx] = [from(operands.x), from(operands.loss), from(operands.dLoss), from(operands.dx)];
      return [
        ...linearCalls(node, scratch, { x, y: logits, rows: count, k: width, weight, bias: undefined, segments }),
        call('cross_entropy_rows_backward', {
          logits: logits.pointer,
          logitsStride: stride,
          rows: count,
          vocabulary,
          targets: targets + 4 * first,
          loss: loss.pointer,
          lossStride: loss.stride,
          dLoss: dLoss.pointer,
          dLossStride: dLoss.stride,
        }),
        ...inputBackwardCalls(node, scratch, { dy: logits, dx, rows: count, width, weight, segments }),
        ...(dWeight ? weightBackwardCalls(node, scratch, { x, dy: logits, rows: count, width, dWeight, dBias: 0, segments }) : []),
      ];
    });
  },
};
