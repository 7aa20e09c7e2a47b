/** Drop path (Huang et al. 2016): whole samples of a residual branch are dropped. */

import { type Op, defineOp } from '../op.ts';

/** y[b] = x[b] * keep_b / (1 - rate), keep_b by Philox(seed, stream, seed[2] + b). x, y: (B, T, D), seed: (3) i32. */
export const dropPath: Op<'x' | 'seed', 'y', { rate: number; stream: number }> = defineOp({
  name: 'drop_path',
  inputs: { x: 'B T D', seed: 'S' },
  outputs: { y: 'B T D' },
  attributes: { rate: 0, stream: 0 },
  flops: ({ B, T, D }) => B! * T! * D!,
  inPlace: { y: 'x' },
  gradient: ({ inputs: { seed }, grads: { y: dy }, attributes }) => ({ x: dropPath({ x: dy, seed }, attributes).y }),
});
