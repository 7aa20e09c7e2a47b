/** The head's loss and gradients on WebGPU, some hundred tokens at a time: logits, their gradient in place, two products. */

import { chunkOf, chunksOf, crossEntropy, segmentsOf } from '../linear-cross-entropy/webgpu.ts';
import { forwardProduct, inputProduct, rowsFrom, weightProduct, weightProductFloats } from '../linear/webgpu-products.ts';
import type { WebGpuCommand, WebGpuKernel, WebGpuNode } from '../webgpu-kernel.ts';

/** Where the parts of the scratch memory begin, in floats: logits are first. */
function layoutOf(node: WebGpuNode) {
  const { rows, stride } = chunkOf(node);
  const logits = rows * stride;
  const partials = logits * (node.has('teacher') ? 2 : 1);
  const x = rowsFrom(node.buffer('x'), 0, rows);
  const added = node.has('dWeight') ? weightProductFloats(x, node.weight('dWeight'), segmentsOf(node)) : 0;
  return { taught: logits, partials, end: partials + added };
}

export const linearCrossEntropyBackwardWebGpu: WebGpuKernel = {
  scratchFloats: (node) => layoutOf(node).end,
  dispatches(node) {
    const layout = layoutOf(node);
    const weight = node.weight('weight');
    const segments = segmentsOf(node);
    const commands: WebGpuCommand[] = [];
    for (const { first, x, logits } of chunksOf(node)) {
      commands.push(...forwardProduct(node, x, weight, segments, logits));
      let taught: number | undefined;
      if (node.has('teacher')) {
        taught = node.scratch + layout.taught;
        const teacher = rowsFrom(node.buffer('teacher'), first, x.rows);
        commands.push(...forwardProduct(node, teacher, weight, segments, { ...logits, offset: taught }));
      }
      commands.push(crossEntropy(node, first, logits, { taught }));
      commands.push(...inputProduct(logits, weight, segments, rowsFrom(node.buffer('dx'), first, x.rows)));
      if (node.has('dWeight')) {
        commands.push(...weightProduct(x, logits, node.weight('dWeight'), segments, node.scratch + layout.partials));
      }
    }
    return commands;
  },
};
