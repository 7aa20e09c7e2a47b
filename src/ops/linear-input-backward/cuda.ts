/** The gradient of `linear` with respect to its input on CUDA. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, type CudaLaunch, ELEMENT_BYTES } from '../cuda-kernel.ts';
import { castBytes, castOperand, inputProducts } from '../linear/cuda-products.ts';
import { weightBytes, weightOperand } from '../linear/cuda-weight.ts';

export const linearInputBackwardCuda: CudaKernel = {
  scratchBytes: (node) => castBytes(node, 'dy') + weightBytes(node, 'weight', node.segments('segments')),
  launches(node) {
    const { matrix: dy, launches } = castOperand(node, 'dy', node.scratch);
    const dx = node.buffer('dx');
    // Products write the width alone; the columns that pad it have to be zero.
    const padded: CudaLaunch[] =
      dx.width === paddedColumns(dx.width)
        ? []
        : [
            {
              kind: 'fill',
              pointer: dx.pointer,
              bytes: (dx.rows - 1) * dx.stride * ELEMENT_BYTES[dx.element] + paddedColumns(dx.width) * ELEMENT_BYTES[dx.element],
            },
          ];
    const scratch = node.scratch + BigInt(castBytes(node, 'dy'));
    const weight = weightOperand(node, 'weight', node.segments('segments'), scratch);
    return [...launches, ...padded, ...weight.launches, ...inputProducts(dy, dx.rows, dx.width, weight.runs, dx)];
  },
};
