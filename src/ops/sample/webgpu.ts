/** WebGPU dispatch of `sample`: a workgroup a row. */

import { streamOf } from '../../tensor/random.ts';
import { type WebGpuKernel, arena, fold, rowConstants, specialise } from '../webgpu-kernel.ts';
import { SAMPLE_SOURCE } from './webgpu-source.ts';

/** Bits of a weight behind the point at most; the sum of all weights has to stay below 2^63. */
const MOST_FRACTION = 43;
const SUM_BITS = 63;

export const sampleWebGpu: WebGpuKernel = {
  dispatches(node) {
    const { rows, width } = node.buffer('logits');
    const fraction = Math.min(MOST_FRACTION, SUM_BITS - Math.ceil(Math.log2(width)));
    return [
      {
        kind: 'dispatch',
        source: specialise({ FRACTION: fraction, STREAM: streamOf('sample') }) + SAMPLE_SOURCE,
        entry: 'sample',
        workgroups: fold(rows),
        bindings: [arena('u32')],
        constants: {
          ...rowConstants(node, 'logits'),
          rows,
          width,
          settings: node.buffer('settings').offset,
          random: node.buffer('random').offset,
          ids: node.buffer('ids').offset,
        },
      },
    ];
  },
};
