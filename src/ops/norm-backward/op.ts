/** The gradient of `norm` and `add_norm`. */

import { defineOp } from '../op.ts';

/**
 * dx = dSum + r * (g - mean(g) [centred only] - xhat * mean(g * xhat)), g = weight * dy, xhat the normalised x, r the
 * inverse deviation; dWeight += sum of dy * xhat, dBias += sum of dy over the rows. All (*, D).
 */
export const normBackward = defineOp({
  name: 'norm_backward',
  inputs: { x: '* D', weight: 'vector', dy: '* D', dSum: '* D?', dWeight: 'vector?', dBias: 'vector?' },
  outputs: { dx: '* D' },
  attributes: { eps: 1e-5, center: false },
  flops: ({ rows, D }) => 12 * rows! * D!,
  inPlace: { dx: 'dy' },
});
