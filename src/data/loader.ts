/**
 * Batches of windows for training, drawn from token files.
 *
 * Every batch is a pure function of its place (step, level, micro-batch) under a seed: nothing is carried from one
 * batch to the next, so a run resumes exactly from its step number alone. Micro-batches are numbered through all ranks
 * (rank r of n takes r, r + n, ...), so the data of a step does not depend on how many ranks share it.
 *
 * - `uniform`: windows begin anywhere, drawn with replacement, fresh ones for every level (the recipe of books-10m).
 * - `permuted`: windows of T tokens that do not overlap, each once in an epoch, in the order of a seeded permutation,
 *   a new one for every epoch.
 */

import { MatMambaError, refuseUnknownKeys } from '../errors.ts';
import { philox } from '../tensor/random.ts';
import { Permutation } from './permutation.ts';
import { TokenSet, listTokenFiles } from './token-set.ts';

export const SAMPLINGS = ['uniform', 'permuted'] as const;
export type Sampling = (typeof SAMPLINGS)[number];

export interface TokenLoaderOptions {
  /** Rows of a micro-batch (B). */
  readonly batchSize: number;
  /** Tokens of a window (T); a window reads one more, the last target. */
  readonly length: number;
  /** Ids must be below this (V). */
  readonly vocabSize: number;
  readonly seed?: number | undefined;
  /** Default: uniform. */
  readonly sampling?: Sampling | undefined;
  /** `permuted` needs to know how many levels take part in a step ... Default: 1. */
  readonly levels?: number | undefined;
  /** ... and how many micro-batches each of them takes, all ranks together. Default: 1. */
  readonly microBatches?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Where a batch stands in the training. */
export interface BatchPlace {
  readonly step: number;
  /** The level's number among those of the step: 0, 1, 2, ... Default: 0. */
  readonly level?: number;
  /** The micro-batch's number in the step and level, counted through all ranks. Default: 0. */
  readonly microBatch?: number;
}

/** B * T ids, row by row, and what comes after each. */
export interface TokenBatch {
  readonly ids: Int32Array;
  readonly targets: Int32Array;
}

const OPTION_KEYS = [
  'batchSize',
  'length',
  'vocabSize',
  'seed',
  'sampling',
  'levels',
  'microBatches',
  'signal',
] as const satisfies ReadonlyArray<keyof TokenLoaderOptions>;
/** Keeps these random numbers apart from others under the same seed. */
const UNIFORM_STREAM = 0x756e6966;
/** Batches that may be prepared ahead. */
const MOST_AHEAD = 8;

export class TokenLoader implements AsyncDisposable {
  readonly batchSize: number;
  readonly length: number;
  /** Tokens of all files. */
  readonly tokens: number;
  /** Windows that do not overlap: an epoch of `permuted`. */
  readonly windows: number;
  readonly #set: TokenSet;
  readonly #options: TokenLoaderOptions;
  readonly #key: readonly [number, number];
  readonly #ahead = new Map<string, Promise<TokenBatch>>();
  #permutation: { readonly epoch: number; readonly of: Permutation } | undefined;

  private constructor(set: TokenSet, options: TokenLoaderOptions) {
    const { batchSize, length, seed = 0 } = options;
    this.#set = set;
    this.#options = options;
    this.batchSize = batchSize;
    this.length = length;
    this.tokens = set.length;
    this.windows = Math.floor((set.length - 1) / length);
    this.#key = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
  }

  /**
   * Opens token files: a data folder (its `train_*.bin`), a file, or several.
   * @throws FILE; FORMAT for a damaged file, or one with fewer than T + 1 tokens; OPTION
   */
  static async open(source: string | readonly string[], options: TokenLoaderOptions): Promise<TokenLoader> {
    refuseUnknownKeys(options, OPTION_KEYS, 'TokenLoader.open');
    const { batchSize, length, vocabSize, levels = 1, microBatches = 1, seed = 0 } = options;
    for (const [name, value] of Object.entries({ batchSize, length, vocabSize, levels, microBatches })) {
      if (!Number.isSafeInteger(value) || value < 1)
        throw new MatMambaError('OPTION', `${name} is ${value}: expected a whole number of at least 1`);
    }
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw new MatMambaError('OPTION', `seed is ${seed}: expected a whole number of at least 0`);
    if (options.sampling !== undefined && !SAMPLINGS.includes(options.sampling)) {
      throw new MatMambaError('OPTION', `sampling is '${options.sampling}': expected ${SAMPLINGS.join(' or ')}`);
    }
    const sources = typeof source === 'string' ? [source] : source;
    const paths = (await Promise.all(sources.map((one) => listTokenFiles(one)))).flat();
    const set = await TokenSet.open(paths, options.signal);
    if (set.length > length) return new TokenLoader(set, options);
    await set.close();
    throw new MatMambaError(
      'FORMAT',
      `${paths.join(', ')}: ${set.length} tokens hold no window of ${length} tokens and one target`,
      {
        hint: set.length > 1 ? `use a window of at most ${set.length - 1} tokens, or more text` : 'prepare more text',
      },
    );
  }

  /**
   * The batch of a place; the same every time.
   * @throws TOKEN naming file and position of an id outside the vocabulary; FILE, FORMAT, OPTION
   */
  batch(place: BatchPlace): Promise<TokenBatch> {
    const key = keyOf(place);
    const prepared = this.#ahead.get(key);
    this.#ahead.delete(key);
    return prepared ?? this.#read(place);
  }

  /** Begins to read a batch that will be asked for soon. An error is thrown by `batch`. */
  prefetch(place: BatchPlace): void {
    const key = keyOf(place);
    if (this.#ahead.has(key)) return;
    // Places that were never asked for give way.
    for (const old of this.#ahead.keys()) if (this.#ahead.size >= MOST_AHEAD) this.#ahead.delete(old);
    const reading = this.#read(place);
    reading.catch(() => undefined);
    this.#ahead.set(key, reading);
  }

  /** The first token of each row's window. */
  starts({ step, level = 0, microBatch = 0 }: BatchPlace): number[] {
    const { levels = 1, microBatches = 1, sampling = 'uniform' } = this.#options;
    if (![step, level, microBatch].every((value) => Number.isSafeInteger(value) && value >= 0)) {
      throw new MatMambaError('OPTION', `there is no batch at step ${step}, level ${level}, micro-batch ${microBatch}`);
    }
    const first = microBatch * this.batchSize;
    if (sampling === 'uniform')
      return Array.from({ length: this.batchSize }, (_, row) => this.#uniform(step, level, first + row));
    if (level >= levels || microBatch >= microBatches) {
      throw new MatMambaError(
        'OPTION',
        `level ${level}, micro-batch ${microBatch}: a step has ${levels} levels of ${microBatches} micro-batches`,
      );
    }
    const taken = (step * levels + level) * microBatches * this.batchSize + first;
    return Array.from({ length: this.batchSize }, (_, row) => this.length * this.#permuted(taken + row));
  }

  #uniform(step: number, level: number, row: number): number {
    const block = new Uint32Array(4);
    philox(row, step, level, UNIFORM_STREAM, ...this.#key, block);
    const uniform = (block[0]! * 2 ** 21 + (block[1]! >>> 11)) / 2 ** 53;
    return Math.floor(uniform * (this.tokens - this.length));
  }

  /** The window that is number `taken` of the whole training. */
  #permuted(taken: number): number {
    const epoch = Math.floor(taken / this.windows);
    if (this.#permutation?.epoch !== epoch) {
      this.#permutation = { epoch, of: new Permutation(this.windows, this.#options.seed ?? 0, epoch) };
    }
    return this.#permutation.of.at(taken % this.windows);
  }

  async #read(place: BatchPlace): Promise<TokenBatch> {
    const { batchSize, length } = this;
    const ids = new Int32Array(batchSize * length);
    const targets = new Int32Array(batchSize * length);
    await Promise.all(
      this.starts(place).map(async (start, row) => {
        const window = await this.#set.read(start, length + 1, this.#options.vocabSize);
        ids.set(window.subarray(0, length), row * length);
        targets.set(window.subarray(1), row * length);
      }),
    );
    return { ids, targets };
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#ahead.values());
    this.#ahead.clear();
    await this.#set.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

const keyOf = ({ step, level = 0, microBatch = 0 }: BatchPlace): string => `${step}/${level}/${microBatch}`;
