/** The factor of gradient clipping by the global norm. */

import { defineOp } from '../op.ts';

/**
 * norm = sqrt(squares); factor = min(1, maxNorm / (norm + 1e-6)), as PyTorch has it. settings[0] is maxNorm. All (1).
 * A norm that is not finite gives the factor 0, which `adamw` takes as: change nothing.
 */
export const clipFactor = defineOp({
  name: 'clip_factor',
  inputs: { squares: 'I', settings: 'S' },
  outputs: { factor: () => ({ shape: [1] }), norm: () => ({ shape: [1] }) },
  attributes: {},
  flops: () => 0,
});
