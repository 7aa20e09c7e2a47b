/** CUDA launch of `sample`: a block a row. */

import { streamOf } from '../../tensor/random.ts';
import { type CudaKernel, defines, i32, rowOperand, typeOf } from '../cuda-kernel.ts';
import { SAMPLE_SHARED_BYTES, SAMPLE_SOURCE } from './cuda-source.ts';

export const sampleCuda: CudaKernel = {
  launches(node) {
    const { rows, width } = node.buffer('logits');
    return [
      {
        kind: 'kernel',
        source: defines({ X: typeOf(node, 'logits'), STREAM: `${streamOf('sample')}u` }) + SAMPLE_SOURCE,
        entry: 'sample',
        grid: [rows],
        block: 1024,
        sharedBytes: SAMPLE_SHARED_BYTES,
        args: [
          ...rowOperand(node, 'logits'),
          i32(width),
          node.buffer('settings').pointer,
          node.buffer('random').pointer,
          node.buffer('ids').pointer,
        ],
      },
    ];
  },
};
