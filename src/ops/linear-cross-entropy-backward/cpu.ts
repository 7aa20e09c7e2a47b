import { paddedColumns } from '../../graph/graph.ts';
import { type CpuCall, type CpuKernel, type CpuNode, call, f32 } from '../cpu-kernel.ts';
import { inputBackwardCalls, inputBackwardScratchBytes } from '../linear-input-backward/cpu.ts';
import { weightBackwardCalls, weightBackwardScratchBytes } from '../linear-weight-backward/cpu.ts';
import { linearCalls, linearScratchBytes } from '../linear/cpu.ts';

/**
 * Rows whose logits exist at once: every chunk packs the head's weight twice and reads and writes its whole gradient.
 * GFLOP/s of one core at D 768, V 50,280, chunks of 64 / 128 / 256 / 512 / 1024 rows: own kernels 43 / 46 / 48 / 47 /
 * 48, with a BLAS - / 89 / 94 / 98 / 99; the logits take 13 / 26 / 51 / 103 / 206 MB.
 */
const CHUNK_ROWS = 512;
/** Half as many rows where the logits of all would take more. */
const LOGITS_BYTES = 64 * 1024 * 1024;

type Unplaced = Omit<CpuNode, 'scratch'>;

function shapeOf(node: Unplaced) {
  const { rows, width } = node.buffer('x');
  const weight = node.weight('weight');
  const vocabulary = weight.shape[0]!;
  const stride = paddedColumns(vocabulary);
  // A teacher's logits lie behind the student's.
  const copies = node.has('teacher') ? 2 : 1;
  const chunkRows = Math.min(rows, 4 * CHUNK_ROWS * stride * copies > LOGITS_BYTES ? CHUNK_ROWS / 2 : CHUNK_ROWS);
  return {
    rows,
    width,
    weight,
    vocabulary,
    chunkRows,
    copies,
    stride,
    logitsBytes: 4 * chunkRows * stride,
    segments: [{ start: 0, count: vocabulary }],
  };
}

export const linearCrossEntropyBackwardCpu: CpuKernel = {
  scratchBytes(node) {
    const { rows, width, weight, chunkRows, copies, logitsBytes, segments } = shapeOf(node);
    // The last chunk has fewer rows, for which other kernels may be better.
    const needs = [chunkRows, rows % chunkRows || chunkRows].flatMap((count) => [
      linearScratchBytes(node, { rows: count, k: width, weight, segments }),
      inputBackwardScratchBytes(node, { rows: count, width, weight }),
      weightBackwardScratchBytes(node, { rows: count, width, segments }),
    ]);
    return copies * logitsBytes + Math.max(...needs);
  },
  calls(node) {
    const { rows, chunkRows } = shapeOf(node);
    const chunks = Array.from({ length: Math.ceil(rows / chunkRows) }, (_, i) => i * chunkRows);
    return chunks.flatMap((first) => chunkCalls(node, first, Math.min(chunkRows, rows - first)));
  },
};

/** Loss and gradients of rows `first .. first + rows`. */
function chunkCalls(node: CpuNode, first: number, rows: number): readonly CpuCall[] {
  const { width, weight, vocabulary, stride: logitsStride, copies, logitsBytes, segments } = shapeOf(node);
  const from = (name: string): { pointer: number; stride: number } => {
    const { pointer, stride } = node.buffer(name);
    return { pointer: pointer + 4 * first * stride, stride };
  };
  const [x, loss, dLoss, dx] = [from('x'), from('loss'), from('dLoss'), from('dx')];
  const logits = { pointer: node.scratch, stride: logitsStride };
  const taught = { pointer: node.scratch + logitsBytes, stride: logitsStride };
  const scratch = node.scratch + copies * logitsBytes;
  const targets = node.buffer('targets').pointer + 4 * first;
  const product = { rows, k: width, weight, bias: undefined, segments };
  const dWeight = node.has('dWeight') ? node.weight('dWeight') : undefined;
  return [
    ...linearCalls(node, scratch, { ...product, x, y: logits }),
    call('cross_entropy_rows_backward', {
      logits: logits.pointer,
      logitsStride,
      rows,
      vocabulary,
      targets,
      loss: loss.pointer,
      lossStride: loss.stride,
      dLoss: dLoss.pointer,
      dLossStride: dLoss.stride,
    }),
    ...(node.has('teacher')
      ? [
          ...linearCalls(node, scratch, { ...product, x: from('teacher'), y: taught }),
          call('distill_rows_backward', {
            logits: logits.pointer,
            taught: taught.pointer,
            stride: logitsStride,
            rows,
            vocabulary,
            targets,
            dLoss: dLoss.pointer,
            dLossStride: dLoss.stride,
            share: f32(node.number('distill')),
          }),
        ]
      : []),
    ...inputBackwardCalls(node, scratch, { dy: logits, dx, rows, width, weight, segments }),
    ...(dWeight ? weightBackwardCalls(node, scratch, { x, dy: logits, rows, width, dWeight, dBias: 0, segments }) : []),
  ];
}
