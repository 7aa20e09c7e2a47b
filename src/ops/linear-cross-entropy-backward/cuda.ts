/** The head's loss and gradients on CUDA, some thousand tokens at a time: logits, their gradient in place, two products. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, type CudaLaunch, type CudaNode, ELEMENT_BYTES, f32, i32 } from '../cuda-kernel.ts';
import { BLOCK_THREADS, chunkOf, rowsFrom, segmentsOf, sourceOf } from '../linear-cross-entropy/cuda.ts';
import { castBytes, castOperand, forwardProducts, inputProducts, runsOf, weightProducts } from '../linear/cuda-products.ts';
import { weightBytes, weightOperand } from '../linear/cuda-weight.ts';

/** Where the parts of the scratch memory begin, in bytes. */
function layoutOf(node: CudaNode) {
  const teacherCast = castBytes(node, 'x');
  const weight = teacherCast + (node.has('teacher') ? castBytes(node, 'teacher') : 0);
  const logits = weight + weightBytes(node, 'weight', segmentsOf(node));
  const taught = logits + chunkOf(node).bytes;
  return { teacherCast, weight, logits, taught, end: taught + (node.has('teacher') ? chunkOf(node).bytes : 0) };
}

export const linearCrossEntropyBackwardCuda: CudaKernel = {
  wide: ['loss'],
  scratchBytes: (node) => layoutOf(node).end,
  launches(node) {
    const { rows, width } = node.buffer('x');
    const layout = layoutOf(node);
    const place = (offset: number): bigint => node.scratch + BigInt(offset);
    const x = castOperand(node, 'x', node.scratch);
    const teacher = node.has('teacher') ? castOperand(node, 'teacher', place(layout.teacherCast)) : undefined;
    const weight = weightOperand(node, 'weight', segmentsOf(node), place(layout.weight));
    const chunk = chunkOf(node);
    const matrix = (offset: number) => ({ pointer: place(offset), element: node.activation, stride: chunk.stride });
    const logits = matrix(layout.logits);
    const taught = matrix(layout.taught);
    const dx = node.buffer('dx');
    const scale = node.buffer('dLoss');
    const launches: CudaLaunch[] = [...x.launches, ...(teacher?.launches ?? []), ...weight.launches];
    if (dx.width !== paddedColumns(dx.width)) {
      launches.push({ kind: 'fill', pointer: dx.pointer, bytes: dx.rows * dx.stride * ELEMENT_BYTES[dx.element] });
    }
    const gradient = node.has('dWeight') ? runsOf(node.weight('dWeight'), segmentsOf(node)) : undefined;
    for (let first = 0; first < rows; first += chunk.rows) {
      const count = Math.min(chunk.rows, rows - first);
      const loss = rowsFrom(node.buffer('loss'), first);
      const part = rowsFrom(x.matrix, first);
      launches.push(...forwardProducts(part, count, width, weight.runs, logits));
      if (teacher) launches.push(...forwardProducts(rowsFrom(teacher.matrix, first), count, width, weight.runs, taught));
      launches.push({
        kind: 'kernel',
        source: sourceOf(node),
        entry: 'cross_entropy_gradient',
        grid: [count],
        block: BLOCK_THREADS,
        args: [
          logits.pointer,
          i32(chunk.stride),
          i32(node.weight('weight').shape[0]!),
          node.buffer('targets').pointer + BigInt(4 * first),
          teacher ? taught.pointer : 0n,
          f32(node.number('distill')),
          rowsFrom(scale, first).pointer,
          i32(scale.stride),
          loss.pointer,
          i32(loss.stride),
        ],
      });
      launches.push(...inputProducts(logits, count, width, weight.runs, rowsFrom(dx, first)));
      if (gradient) launches.push(...weightProducts(part, logits, count, width, gradient));
    }
    return launches;
  },
};
