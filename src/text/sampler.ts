/**
 * Draws the next token from logits.
 *
 * Steps, in the order and with the meaning of the Hugging Face processors: repetition penalty, temperature, top-k,
 * top-p, min-p, draw. The draw walks the kept tokens in the order of their ids, so logits that differ in the last
 * bits, as those of two devices do, still give the same token for the same seed almost always.
 */

import { MatMambaError, refuseUnknownKeys } from '../errors.ts';
import { Random } from '../tensor/random.ts';
import { MassScratch, comesBefore, kthLargest, massCut } from './select.ts';

/** How to draw. An option that is absent or undefined has its default. */
export interface SamplerOptions {
  /** Divides the logits; 0 takes the likeliest token, the lowest id of equals. Default 1. */
  temperature?: number | undefined;
  /** Keeps the k likeliest tokens (and ties of the last); 0, the default, keeps all. */
  topK?: number | undefined;
  /** Keeps the fewest tokens that hold this much of the probability, 0 < topP <= 1. Default 1. */
  topP?: number | undefined;
  /** Keeps tokens at least this likely relative to the likeliest, 0 to 1. Default 0. */
  minP?: number | undefined;
  /** Above 1 makes tokens of the prompt and of the output so far less likely. Default 1. */
  repetitionPenalty?: number | undefined;
  /** Repeats the same draws. A whole number; a random one by default. */
  seed?: number | undefined;
}

export const SAMPLER_OPTION_KEYS = ['temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'seed'] as const;

export class Sampler {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  /** The seed in use, also when it was chosen at random. */
  readonly seed: number;
  readonly #vocabSize: number;
  readonly #random: Random;
  /** Kept tokens: ids (only when not all are kept) and weights relative to the likeliest. Grown to V once. */
  #ids = new Int32Array(0);
  #weights = new Float64Array(0);
  #scratch = new Float32Array(0);
  #penalised = new Float32Array(0);
  /** The call in which an id was penalised last: no id is penalised twice, and nothing needs clearing. */
  #seen = new Uint32Array(0);
  #call = 0;
  readonly #mass = new MassScratch();

  /**
   * @param vocabSize ids from here on are never drawn: the padding of a model's vocabulary
   * @throws OPTION
   */
  constructor(options: SamplerOptions = {}, vocabSize = Infinity) {
    refuseUnknownKeys(options, SAMPLER_OPTION_KEYS, 'sampling');
    const { temperature = 1, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, seed = randomSeed() } = options;
    requireOption(
      Number.isFinite(temperature) && temperature >= 0,
      'temperature',
      temperature,
      'a number of at least 0; 0 is greedy',
    );
    requireOption(
      Number.isSafeInteger(topK) && topK >= 0,
      'topK',
      topK,
      'a whole number of at least 1; 0 or none keeps every token',
    );
    requireOption(topP > 0 && topP <= 1, 'topP', topP, 'above 0 and at most 1; 1 keeps every token');
    requireOption(minP >= 0 && minP <= 1, 'minP', minP, 'from 0 to 1; 0 keeps every token');
    requireOption(
      Number.isFinite(repetitionPenalty) && repetitionPenalty > 0,
      'repetitionPenalty',
      repetitionPenalty,
      'above 0; 1 changes nothing, 1.1 to 1.3 is usual',
    );
    requireOption(Number.isSafeInteger(seed) && seed >= 0, 'seed', seed, 'a whole number of at least 0');
    this.temperature = temperature;
    this.topK = topK;
    this.topP = topP;
    this.minP = minP;
    this.repetitionPenalty = repetitionPenalty;
    this.seed = seed;
    this.#vocabSize = vocabSize;
    this.#random = new Random(seed, 'sample');
  }

  /**
   * The id of the next token.
   * @param logits (V), left as they are; -Infinity rules a token out
   * @param history ids of the prompt and of the output so far, for the repetition penalty
   * @throws WEIGHTS when a logit is NaN or Infinity, or none is finite
   */
  sample(logits: Float32Array, history: ArrayLike<number> = []): number {
    const n = Math.min(logits.length, this.#vocabSize);
    const scores = this.repetitionPenalty === 1 ? logits : this.#penalise(logits, n, history);
    const best = argmax(scores, n);
    return this.temperature === 0 ? best : this.#draw(scores, n, scores[best]!);
  }

  #penalise(logits: Float32Array, n: number, history: ArrayLike<number>): Float32Array {
    if (this.#penalised.length < logits.length) {
      this.#penalised = new Float32Array(logits.length);
      this.#seen = new Uint32Array(logits.length);
      this.#call = 0;
    }
    const scores = this.#penalised;
    const call = ++this.#call;
    scores.set(logits);
    for (let i = 0; i < history.length; i++) {
      const id = history[i]!;
      if (id >= n || this.#seen[id] === call) continue;
      this.#seen[id] = call;
      const score = scores[id]!;
      scores[id] = score < 0 ? score * this.repetitionPenalty : score / this.repetitionPenalty;
    }
    return scores;
  }

  #draw(scores: Float32Array, n: number, max: number): number {
    this.#reserve(n);
    const weights = this.#weights;
    const inverse = 1 / this.temperature;
    let count = n;
    let total = 0;
    const some = this.topK > 0 && this.topK < n;
    if (some) {
      const threshold = kthLargest(scores, n, this.topK, this.#scratch);
      count = 0;
      for (let id = 0; id < n; id++) if (scores[id]! >= threshold) this.#ids[count++] = id;
      for (let i = 0; i < count; i++) total += weights[i] = weightOf(scores[this.#ids[i]!]!, max, inverse);
    } else {
      for (let id = 0; id < n; id++) total += weights[id] = weightOf(scores[id]!, max, inverse);
    }

    // The last kept token under top-p and min-p together: of two limits the tighter one.
    let least = this.minP;
    let last = Infinity;
    if (this.topP < 1) {
      const cut = massCut(weights, count, total, this.topP, this.#mass);
      if (cut.weight >= least) ({ weight: least, index: last } = cut);
    }
    if (least > 0) {
      total = 0;
      for (let i = 0; i < count; i++) {
        const weight = weights[i]!;
        if (comesBefore(least, last, weight, i)) weights[i] = 0;
        else total += weight;
      }
    }

    let left = this.#uniform() * total;
    let drawn = 0;
    for (let i = 0; i < count; i++) {
      const weight = weights[i]!;
      if (weight === 0) continue;
      // Also the answer when rounding leaves a rest after the last token.
      drawn = i;
      left -= weight;
      if (left < 0) break;
    }
    return some ? this.#ids[drawn]! : drawn;
  }

  #reserve(n: number): void {
    if (this.#weights.length >= n) return;
    this.#ids = new Int32Array(n);
    this.#weights = new Float64Array(n);
    this.#scratch = new Float32Array(n);
  }

  /** Uniform in [0, 1) with 53 bits: with 24, the rarest tokens of a large vocabulary would never come. */
  #uniform(): number {
    const high = this.#random.uint32() >>> 5;
    const low = this.#random.uint32() >>> 6;
    return (high * 2 ** 26 + low) * 2 ** -53;
  }
}

/** The probability relative to the likeliest token's. */
function weightOf(score: number, max: number, inverse: number): number {
  // The likeliest is 1 even where a tiny temperature makes `inverse` infinite and 0 * inverse NaN.
  return score === max ? 1 : Math.exp((score - max) * inverse);
}

/** The lowest id with the largest score; checks every score on its way. */
function argmax(scores: Float32Array, n: number): number {
  let best = -1;
  let max = -Infinity;
  for (let id = 0; id < n; id++) {
    const score = scores[id]!;
    // The comparison is turned round so that a NaN comes in here too.
    if (score <= max) continue;
    if (!(score < Infinity)) throw badLogit(score, id);
    best = id;
    max = score;
  }
  if (best < 0) throw badLogit(-Infinity, undefined);
  return best;
}

function badLogit(score: number, id: number | undefined): MatMambaError {
  const what = id === undefined ? 'no logit is finite' : `the logit of token ${id} is ${score}`;
  return new MatMambaError('WEIGHTS', what, {
    hint: 'the weights hold values that are not finite, or overflow in this dtype: check the checkpoint, or try dtype f32',
  });
}

function requireOption(valid: boolean, name: string, value: unknown, range: string): void {
  if (!valid) throw new MatMambaError('OPTION', `${name} is ${String(value)}`, { hint: `${name} is ${range}` });
}

function randomSeed(): number {
  return Math.floor(Math.random() * 2 ** 32);
}
