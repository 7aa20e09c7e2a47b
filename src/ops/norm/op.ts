/** Root-mean-square norm (Zhang & Sennrich 2019, eq. 4) and layer norm (Ba et al. 2016), over the last axis. */

import { normBackward } from '../norm-backward/op.ts';
import { defineOp } from '../op.ts';

/** y = x / rms(x) * weight, or with `center` (x - mean) / deviation * weight + bias. x, y: (*, D). */
export const norm = defineOp({
  name: 'norm',
  inputs: { x: '* D', weight: 'vector', bias: 'vector?' },
  outputs: { y: '* D' },
  attributes: { eps: 1e-5, center: false },
  flops: ({ rows, D }) => 4 * rows! * D!,
  gradient({ inputs: { x, weight }, grads: { y: dy }, attributes, accumulate }) {
    return { x: normBackward({ x, weight, dy, dWeight: accumulate('weight'), dBias: accumulate('bias') }, attributes).dx };
  },
});
