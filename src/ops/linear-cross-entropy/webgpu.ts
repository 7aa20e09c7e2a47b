/** `linear_cross_entropy` on WebGPU: the logits of some hundred tokens at a time, and their losses. */

import { paddedColumns } from '../../graph/graph.ts';
import { type Matrix, forwardProduct, rowsFrom } from '../linear/webgpu-products.ts';
import {
  type WebGpuCommand,
  type WebGpuDispatch,
  type WebGpuKernel,
  type WebGpuNode,
  arena,
  f32,
  fold,
  specialise,
} from '../webgpu-kernel.ts';
import { CROSS_ENTROPY_SOURCE } from './webgpu-source.ts';

/** Logits that lie in scratch memory at once, and the teacher's: floats at most, and rows. */
const CHUNK_FLOATS = 2 ** 24;
const CHUNK_ROWS = 1024;
/** Rows of a chunk are a multiple of the products' tiles. */
const ROW_STEP = 64;

/** How many rows are done at once, and the stride of their logits. */
export function chunkOf(node: WebGpuNode): { readonly rows: number; readonly stride: number } {
  const stride = paddedColumns(node.weight('weight').shape[0]!);
  const all = node.buffer('x').rows;
  const fitting = Math.min(CHUNK_ROWS, CHUNK_FLOATS / stride / (node.has('teacher') ? 2 : 1));
  const limit = Math.max(1, Math.floor(fitting / ROW_STEP)) * ROW_STEP;
  const each = Math.ceil(all / Math.ceil(all / limit));
  return { rows: Math.min(all, Math.ceil(each / ROW_STEP) * ROW_STEP), stride };
}

export function segmentsOf(node: WebGpuNode) {
  return [{ start: 0, count: node.weight('weight').shape[0]! }];
}

/** The chunks' first rows with their matrices: x, and the logits in scratch. */
export function* chunksOf(node: WebGpuNode): Generator<{ first: number; x: Matrix; logits: Matrix }> {
  const chunk = chunkOf(node);
  const x = node.buffer('x');
  for (let first = 0; first < x.rows; first += chunk.rows) {
    const rows = Math.min(chunk.rows, x.rows - first);
    const logits = { offset: node.scratch, stride: chunk.stride, rows, width: node.weight('weight').shape[0]! };
    yield { first, x: rowsFrom(x, first, rows), logits };
  }
}

/** The losses of rows from `first` on; with `gradient` logits become their gradient, the teacher's logits being at `taught`. */
export function crossEntropy(
  node: WebGpuNode,
  first: number,
  logits: Matrix,
  gradient?: { readonly taught: number | undefined },
): WebGpuDispatch {
  const { rows } = logits;
  const loss = rowsFrom(node.buffer('loss'), first, rows);
  const scale = gradient ? rowsFrom(node.buffer('dLoss'), first, rows) : { offset: 0, stride: 0 };
  const taught = gradient?.taught;
  return {
    kind: 'dispatch',
    source: specialise({ GRADIENT: gradient !== undefined, TAUGHT: taught !== undefined }) + CROSS_ENTROPY_SOURCE,
    entry: 'cross_entropy',
    workgroups: fold(rows),
    bindings: [arena('vec4<u32>')],
    constants: {
      logits: logits.offset,
      logitsStride: logits.stride,
      taught: taught ?? 0,
      targets: node.buffer('targets').offset + first,
      loss: loss.offset,
      lossStride: loss.stride,
      scale: scale.offset,
      scaleStride: scale.stride,
      rows,
      width: logits.width,
      vectors: logits.stride / 4,
      share: f32(taught === undefined ? 0 : node.number('distill')),
    },
  };
}

export const linearCrossEntropyWebGpu: WebGpuKernel = {
  scratchFloats(node) {
    const { rows, stride } = chunkOf(node);
    return rows * stride;
  },
  dispatches(node) {
    const commands: WebGpuCommand[] = [];
    for (const { first, x, logits } of chunksOf(node)) {
      commands.push(
        ...forwardProduct(node, x, node.weight('weight'), segmentsOf(node), logits),
        crossEntropy(node, first, logits),
      );
    }
    return commands;
  },
};
