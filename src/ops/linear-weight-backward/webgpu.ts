/** The gradients of `linear` with respect to weight and bias on WebGPU, added to their buffers. */

import { segmentColumns } from '../../graph/graph.ts';
import { weightProduct, weightProductFloats } from '../linear/webgpu-products.ts';
import type { WebGpuDispatch, WebGpuKernel, WebGpuNode } from '../webgpu-kernel.ts';
import { addManyRows, addManyRowsFloats } from '../webgpu-sums.ts';

function biasDispatches(node: WebGpuNode): WebGpuDispatch[] {
  const dy = node.buffer('dy');
  const segments = node.segments('segments');
  const { columns } = segmentColumns(segments);
  return segments.flatMap(({ start, count }, s) => {
    const from = { ...dy, offset: dy.offset + columns[s]!, width: count };
    return addManyRows(node.weight('dBias').values, from, node.scratch, start);
  });
}

/** One after the other may use the same scratch. */
export const linearWeightBackwardWebGpu: WebGpuKernel = {
  scratchFloats(node) {
    const segments = node.segments('segments');
    const { rows } = node.buffer('dy');
    const largest = Math.max(...segments.map(({ count }) => count));
    return Math.max(
      node.has('dWeight') ? weightProductFloats(node.buffer('x'), node.weight('dWeight'), segments) : 0,
      node.has('dBias') ? addManyRowsFloats({ rows, width: largest }) : 0,
    );
  },
  dispatches(node) {
    const segments = node.segments('segments');
    return [
      ...(node.has('dWeight')
        ? weightProduct(node.buffer('x'), node.buffer('dy'), node.weight('dWeight'), segments, node.scratch)
        : []),
      ...(node.has('dBias') ? biasDispatches(node) : []),
    ];
  },
};
