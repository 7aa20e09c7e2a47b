/** `linear_cross_entropy` on CUDA: the logits of some thousand tokens at a time, and their losses. */

import { paddedColumns } from '../../graph/graph.ts';
import {
  type CudaBuffer,
  type CudaKernel,
  type CudaLaunch,
  type CudaNode,
  ELEMENT_BYTES,
  cType,
  defines,
  i32,
} from '../cuda-kernel.ts';
import { castBytes, castOperand, forwardProducts } from '../linear/cuda-products.ts';
import { weightBytes, weightOperand } from '../linear/cuda-weight.ts';
import { CROSS_ENTROPY_SOURCE } from './cuda-source.ts';

/** Logits that lie in scratch memory at once take at most this. */
const CHUNK_BYTES = 2 ** 30;
export const BLOCK_THREADS = 512;

/** How many rows are done at once, and the bytes and stride of their logits. */
export function chunkOf(node: CudaNode): { rows: number; stride: number; bytes: number } {
  const stride = paddedColumns(node.weight('weight').shape[0]!);
  const rowBytes = stride * ELEMENT_BYTES[node.activation];
  const all = node.buffer('x').rows;
  const chunks = Math.ceil(all / Math.max(1, Math.floor(CHUNK_BYTES / rowBytes)));
  const rows = Math.ceil(all / chunks);
  return { rows, stride, bytes: Math.ceil((rows * rowBytes) / 256) * 256 };
}

export function segmentsOf(node: CudaNode) {
  return [{ start: 0, count: node.weight('weight').shape[0]! }];
}

/** The kernels' source for the node's elements. */
export function sourceOf(node: CudaNode): string {
  return (
    defines({
      T_LOGITS: cType(node.activation),
      T_SCALE: node.has('dLoss') ? cType(node.buffer('dLoss').element) : 'float',
      EXP: node.activation === 'f32' ? 'expf' : 'fast_exp',
    }) + CROSS_ENTROPY_SOURCE
  );
}

/** A matrix from `row` on. */
export function rowsFrom<M extends Pick<CudaBuffer, 'pointer' | 'element' | 'stride'>>(matrix: M, row: number): M {
  return { ...matrix, pointer: matrix.pointer + BigInt(row * matrix.stride * ELEMENT_BYTES[matrix.element]) };
}

export const linearCrossEntropyCuda: CudaKernel = {
  wide: ['loss'],
  scratchBytes: (node) => castBytes(node, 'x') + weightBytes(node, 'weight', segmentsOf(node)) + chunkOf(node).bytes,
  launches(node) {
    const { rows, width } = node.buffer('x');
    const cast = castOperand(node, 'x', node.scratch);
    const weightScratch = node.scratch + BigInt(castBytes(node, 'x'));
    const weight = weightOperand(node, 'weight', segmentsOf(node), weightScratch);
    const chunk = chunkOf(node);
    const logits = {
      pointer: weightScratch + BigInt(weightBytes(node, 'weight', segmentsOf(node))),
      element: node.activation,
      stride: chunk.stride,
    };
    const launches: CudaLaunch[] = [...cast.launches, ...weight.launches];
    for (let first = 0; first < rows; first += chunk.rows) {
      const count = Math.min(chunk.rows, rows - first);
      const loss = rowsFrom(node.buffer('loss'), first);
      launches.push(...forwardProducts(rowsFrom(cast.matrix, first), count, width, weight.runs, logits), {
        kind: 'kernel',
        source: sourceOf(node),
        entry: 'cross_entropy',
        grid: [count],
        block: BLOCK_THREADS,
        args: [
          logits.pointer,
          i32(chunk.stride),
          i32(node.weight('weight').shape[0]!),
          node.buffer('targets').pointer + BigInt(4 * first),
          loss.pointer,
          i32(loss.stride),
        ],
      });
    }
    return launches;
  },
};
