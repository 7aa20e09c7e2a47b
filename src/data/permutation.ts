/**
 * A seeded permutation of 0 ... n - 1 that needs no memory: a Feistel network over the next power of four, walked until
 * it lands inside the range (Black & Rogaway 2002, "cycle walking").
 */

import { philox } from '../tensor/random.ts';

const ROUNDS = 4;

export class Permutation {
  readonly length: number;
  readonly #half: number;
  readonly #key: readonly [number, number];
  readonly #tweak: number;
  readonly #block = new Uint32Array(4);

  /** Number `index` of the permutations under a seed. */
  constructor(length: number, seed: number, index = 0) {
    this.length = length;
    let half = 1;
    while (half * half < length) half *= 2;
    this.#half = half;
    this.#key = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
    this.#tweak = index;
  }

  /** Where `position` goes. */
  at(position: number): number {
    let value = position;
    // Fewer than four turns on average: the network's range is at most four times the permutation's.
    do value = this.#network(value);
    while (value >= this.length);
    return value;
  }

  #network(value: number): number {
    const half = this.#half;
    let left = Math.floor(value / half);
    let right = value % half;
    for (let round = 0; round < ROUNDS; round++) {
      philox(right, round, this.#tweak, PERMUTATION_STREAM, ...this.#key, this.#block);
      const mixed = (left ^ (this.#block[0]! % half)) >>> 0;
      left = right;
      right = mixed;
    }
    return left * half + right;
  }
}

/** Keeps these random numbers apart from others under the same seed. */
const PERMUTATION_STREAM = 0x7065726d;
