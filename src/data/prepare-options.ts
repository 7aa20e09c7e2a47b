/** The options of `prepareText`: their defaults, their checks, and which of them decide about the bytes of the shards. */

import { availableParallelism } from 'node:os';
import { MatMambaError, refuseUnknownKeys } from '../errors.ts';
import type { HubDatasetOptions } from './hub-dataset.ts';
import type { InputFormat } from './inputs.ts';
import type { Manifest } from './manifest.ts';
import type { ShardFile } from './shard-writer.ts';
import type { RunnerOptions } from './task-runner.ts';
import type { Split, TaskOptions } from './tasks.ts';

export interface PrepareTextOptions {
  /** Files, folders, globs, `hub:owner/name[@revision][/glob]`. */
  readonly inputs: readonly string[];
  /** The folder for shards, manifest and tokenizer. */
  readonly out: string;
  /** A `tokenizer.json` or its folder. Default: GPT-2's own. */
  readonly tokenizer?: string | undefined;
  /** Trains a byte-level BPE with this many ids on the text instead. */
  readonly trainBpe?: number | undefined;
  /** Text that the training looks at, from the beginning of the inputs. Default: 512 MiB. */
  readonly trainBpeBytes?: number | undefined;
  /** Tokens of a shard. Default: 100,000,000. */
  readonly shardTokens?: number | undefined;
  /** Tokens of the validation shard, the first of all; 0 for none. Default: 1,048,576. */
  readonly validationTokens?: number | undefined;
  /** Where the end token of a document stands. Default: first, as in llm.c. */
  readonly endToken?: 'first' | 'last' | undefined;
  /** The text column of Parquet files. Default: text. */
  readonly column?: string | undefined;
  /** The text field of JSON lines. Default: text. */
  readonly field?: string | undefined;
  /** How text files are divided into documents. Default: file. */
  readonly split?: Split | undefined;
  /** Reads files of any name as this. */
  readonly format?: InputFormat | undefined;
  /** Long texts are cut at blank lines into pieces of this many paragraphs; 0 leaves them whole. Default: 400. */
  readonly pieceParagraphs?: number | undefined;
  /** Leaves out what cannot be read, and lists it in the manifest. Default: false. */
  readonly skipBad?: boolean | undefined;
  /** This process takes input files `rank`, `rank + ranks`, ... Default: 0 of 1. */
  readonly rank?: number | undefined;
  readonly ranks?: number | undefined;
  /** Worker threads; 0 works on this thread. Default: one per core. */
  readonly workers?: number | undefined;
  /** Begins anew, whatever the folder holds. */
  readonly force?: boolean | undefined;
  readonly hub?: HubDatasetOptions | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: PrepareProgress) => void) | undefined;
  readonly onWarning?: ((message: string) => void) | undefined;
  /** For tests: bytes of a task, and how shards are opened. */
  readonly internals?: { readonly taskBytes?: number; readonly openShard?: (path: string) => Promise<ShardFile> } | undefined;
}

export interface PrepareProgress {
  readonly stage: 'train-bpe' | 'tokenise';
  /** Text of this run so far, and an estimate of all that it will read. */
  readonly textBytes: number;
  readonly totalBytes: number;
  readonly tokens: number;
}

const OPTION_KEYS = [
  'inputs',
  'out',
  'tokenizer',
  'trainBpe',
  'trainBpeBytes',
  'shardTokens',
  'validationTokens',
  'endToken',
  'column',
  'field',
  'split',
  'format',
  'pieceParagraphs',
  'skipBad',
  'rank',
  'ranks',
  'workers',
  'force',
  'hub',
  'signal',
  'onProgress',
  'onWarning',
  'internals',
] as const satisfies ReadonlyArray<keyof PrepareTextOptions>;

/** The header of a token file counts in 31 bits. */
const MOST_SHARD_TOKENS = 2 ** 31 - 1;
export interface PrepareSettings {
  readonly options: PrepareTextOptions;
  readonly rank: number;
  readonly ranks: number;
  readonly workers: number;
  readonly shardTokens: number;
  readonly validationTokens: number;
  readonly tasks: TaskOptions;
  readonly runner: Omit<RunnerOptions, 'tokenizer' | 'endTokenId'>;
  /** What decides about the bytes of the shards. */
  readonly recorded: Manifest['options'];
}

/** Defaults and checks. @throws OPTION */
export function settingsOf(options: PrepareTextOptions): PrepareSettings {
  refuseUnknownKeys(options, OPTION_KEYS, 'prepareText');
  const whole = (name: keyof PrepareTextOptions, fallback: number, least: number, most: number): number => {
    const value = (options[name] as number | undefined) ?? fallback;
    if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
    throw new MatMambaError('OPTION', `${name} is ${value}: expected a whole number from ${least} to ${most}`);
  };
  const ranks = whole('ranks', 1, 1, 2 ** 20);
  const rank = whole('rank', 0, 0, ranks - 1);
  const workers = whole('workers', availableParallelism(), 0, 1024);
  const shardTokens = whole('shardTokens', 100_000_000, 1, MOST_SHARD_TOKENS);
  const validationTokens = whole('validationTokens', 2 ** 20, 0, MOST_SHARD_TOKENS);
  const pieceParagraphs = whole('pieceParagraphs', 400, 0, 2 ** 30);
  const { endToken = 'first', column = 'text', field = 'text', split = 'file', skipBad = false, trainBpe, tokenizer } = options;
  if (trainBpe !== undefined && tokenizer !== undefined) {
    throw new MatMambaError('OPTION', 'a tokenizer was given, and one is to be trained', { hint: 'leave out one of the two' });
  }
  if (options.inputs.length === 0) throw new MatMambaError('OPTION', 'no inputs were named');
  const training = trainBpe === undefined ? {} : { trainBpe, trainBpeBytes: whole('trainBpeBytes', 2 ** 29, 1, 2 ** 40) };
  return {
    options,
    rank,
    ranks,
    workers,
    shardTokens,
    validationTokens,
    tasks: {
      column,
      split,
      pieceParagraphs,
      ...(options.internals?.taskBytes === undefined ? {} : { taskBytes: options.internals.taskBytes }),
    },
    runner: { endTokenFirst: endToken === 'first', pieceParagraphs, column, field, skipBad },
    recorded: {
      shardTokens,
      validationTokens,
      endToken,
      column,
      field,
      split,
      pieceParagraphs,
      skipBad,
      rank,
      ranks,
      ...training,
    },
  };
}
