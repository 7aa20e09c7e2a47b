/** The gradient of `gated_silu`. */

import { defineOp } from '../op.ts';

/** dx = dy * silu(z); dz = dy * x * silu'(z). All (*, E). */
export const gatedSiluBackward = defineOp({
  name: 'gated_silu_backward',
  inputs: { x: '* E', z: '* E', dy: '* E' },
  outputs: { dx: '* E', dz: '* E' },
  attributes: {},
  flops: ({ rows, E }) => 12 * rows! * E!,
});
