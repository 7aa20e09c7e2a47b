/** The gradient of `gated_norm`. */

import { defineOp } from '../op.ts';

/** dx, dz: (*, E) from dy; dWeight += over the rows. */
export const gatedNormBackward = defineOp({
  name: 'gated_norm_backward',
  inputs: { x: '* E', z: '* E', weight: 'vector', dy: '* E', dWeight: 'vector?' },
  outputs: { dx: '* E', dz: '* E' },
  attributes: { eps: 1e-5, normBeforeGate: false },
  flops: ({ rows, E }) => 25 * rows! * E!,
  inPlace: { dx: 'dy' },
});
