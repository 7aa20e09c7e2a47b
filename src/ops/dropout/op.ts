/** Dropout by counter-based random numbers: the mask is a function of (seed, stream, place), so backward needs no copy. */

import { type Op, defineOp } from '../op.ts';

/**
 * y = x * keep / (1 - rate), keep by Philox(seed, stream, element). x, y: (*, D); seed: (3) i32, two halves of the key
 * and the number of the first sample, so that parts of a batch draw what the whole batch would; a sample has `length`
 * rows.
 */
export const dropout: Op<'x' | 'seed', 'y', { rate: number; stream: number; length: number }> = defineOp({
  name: 'dropout',
  inputs: { x: '* D', seed: 'S' },
  outputs: { y: '* D' },
  attributes: { rate: 0, stream: 0, length: 1 },
  flops: ({ rows, D }) => rows! * D!,
  inPlace: { y: 'x' },
  gradient: ({ inputs: { seed }, grads: { y: dy }, attributes }) => ({ x: dropout({ x: dy, seed }, attributes).y }),
});
