/**
 * Draws a token for every row of logits where the logits are, so that decoding need not bring them to the host.
 *
 * The steps and their meaning are those of `Sampler` in src/text: temperature, top-k (with ties of the last), top-p,
 * min-p, and a draw that walks the kept tokens in the order of their ids; temperature 0 takes the likeliest, the lowest
 * id of equals. The repetition penalty needs the history and stays on the host: a call that asks for one samples there.
 *
 * `settings`: temperature, topK (0: all), topP (1: all), minP (0: all), usable ids (from there on none is drawn).
 * `random`: seed and number of the draw, as unsigned 32-bit numbers. Draw d of row r takes numbers 2 d and 2 d + 1 of
 * Philox under (seed, 0) with the counter (number / 4, 0, stream 'sample', r): row 0 draws what a `Sampler` of that seed
 * draws. An id of -1 says that a logit is NaN or infinite, or that none is finite.
 */

import { MatMambaError } from '../../errors.ts';
import { formatShape } from '../../tensor/tensor.ts';
import { defineOp } from '../op.ts';

/** Numbers in `settings` and in `random`. */
export const SAMPLE_SETTINGS = 5;
export const SAMPLE_RANDOM = 2;

/** logits (*, V), settings (5), random (2) int32 -> ids (*) int32. @throws SHAPE */
export const sample = defineOp({
  name: 'sample',
  inputs: { logits: '* V', settings: 'S', random: 'R' },
  outputs: { ids: ({ leading }) => ({ shape: leading, dtype: 'i32' }) },
  attributes: {},
  flops: ({ rows, V }) => 10 * rows! * V!,
  check({ settings, random }, _attributes, { axes: { S, R } }) {
    const fail = (what: string, expected: number, shape: readonly number[]): never => {
      throw new MatMambaError('SHAPE', `sample: '${what}' expected (${expected}), got ${formatShape(shape)}`);
    };
    if (S !== SAMPLE_SETTINGS) fail('settings', SAMPLE_SETTINGS, settings!.shape);
    if (R !== SAMPLE_RANDOM) fail('random', SAMPLE_RANDOM, random!.shape);
  },
});
