/** A gate without a norm: the mixer with `rmsnorm: false`, and the inside of the gated MLP. */

import { gatedSiluBackward } from '../gated-silu-backward/op.ts';
import { defineOp } from '../op.ts';

/** y = x * silu(z). x, z, y: (*, E). */
export const gatedSilu = defineOp({
  name: 'gated_silu',
  inputs: { x: '* E', z: '* E' },
  outputs: { y: '* E' },
  attributes: {},
  flops: ({ rows, E }) => 5 * rows! * E!,
  inPlace: { y: 'x' },
  gradient({ inputs: { x, z }, grads: { y: dy }, into }) {
    const { dx, dz } = gatedSiluBackward({ x, z, dy }, {}, { dx: into('x'), dz: into('z') });
    return { x: dx, z: dz };
  },
});
