/** The mixer's gated RMS norm (Mamba-2's RMSNormGated): the gate before or after the norm. */

import { gatedNormBackward } from '../gated-norm-backward/op.ts';
import { defineOp } from '../op.ts';

/** y = rms(x * silu(z)) * weight[:E], or with `normBeforeGate` rms(x) * weight[:E] * silu(z). x, z, y: (*, E). */
export const gatedNorm = defineOp({
  name: 'gated_norm',
  inputs: { x: '* E', z: '* E', weight: 'vector' },
  outputs: { y: '* E' },
  attributes: { eps: 1e-5, normBeforeGate: false },
  flops: ({ rows, E }) => 9 * rows! * E!,
  inPlace: { y: 'x' },
  gradient({ inputs: { x, z, weight }, grads: { y: dy }, attributes, into, accumulate }) {
    const { dx, dz } = gatedNormBackward({ x, z, weight, dy, dWeight: accumulate('weight') }, attributes, {
      dx: into('x'),
      dz: into('z'),
    });
    return { x: dx, z: dz };
  },
});
