/** AdamW (Loshchilov & Hutter 2019, algorithm 2, as PyTorch computes it), one parameter a node. */

import { defineOp } from '../op.ts';

/** Places of the numbers in `settings`. */
export const ADAMW_SETTINGS = ['lr', 'beta1', 'beta2', 'eps', 'weightDecay', 'correction1', 'correction2'] as const;

/**
 * g = gradient * factor; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
 * weight = weight (1 - lr * weightDecay [with `decay`]) - lr / correction1 * m / (sqrt(v / correction2) + eps);
 * gradient = 0. A factor of 0 (the norm was not finite) changes nothing. Buffers are float32, of one storage layout;
 * settings: as ADAMW_SETTINGS, correction_i = 1 - beta_i^step.
 */
export const adamw = defineOp({
  name: 'adamw',
  inputs: { weight: 'vector', gradient: 'vector', dM: 'vector', dV: 'vector', factor: 'I', settings: 'S' },
  outputs: {},
  attributes: { decay: true },
  flops: () => 0,
});
