/** `matmamba data text`: text into token files for training. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { type PrepareProgress, type PrepareTextResult, SPLITS, prepareText } from '../../data/index.ts';
import { type CheckedArguments, UsageError } from '../arguments.ts';
import { defineCliCommand } from '../command.ts';
import type { Io } from '../io.ts';
import { flag, jsonArgs, text, whole } from '../options.ts';
import { Progress } from '../progress.ts';
import { fields, formatBytes, formatCount, formatSeconds, grouped } from '../text-layout.ts';

const FORMATS = ['parquet', 'jsonl', 'text'] as const;
const END_TOKENS = ['first', 'last'] as const;

const args: ArgsDef = {
  kind: { type: 'positional', required: true, description: 'what to prepare: text' },
  input: {
    type: 'positional',
    required: true,
    description: 'files, folders, globs, or datasets of the hub: hub:owner/name[@revision][/glob]',
  },
  out: { type: 'string', valueHint: 'DIR', description: 'the folder for shards, manifest and tokenizer' },
  tokenizer: { type: 'string', valueHint: 'FILE|DIR', description: "a tokenizer.json (default: GPT-2's own)" },
  'train-bpe': { type: 'string', valueHint: 'N', description: 'train a byte-level BPE with N ids on the text instead' },
  'train-bpe-bytes': {
    type: 'string',
    valueHint: 'N',
    description: 'text it looks at, from the beginning of the inputs',
    default: '512M',
  },
  'shard-tokens': { type: 'string', valueHint: 'N', description: 'tokens of a shard', default: '100M' },
  'validation-tokens': {
    type: 'string',
    valueHint: 'N',
    description: 'tokens of the first shard, which is for validation; 0: none',
    default: '1048576',
  },
  'end-token': {
    type: 'enum',
    options: [...END_TOKENS],
    description: 'where the end token of a document stands',
    default: 'first',
  },
  column: { type: 'string', valueHint: 'NAME', description: 'the text column of Parquet files', default: 'text' },
  field: { type: 'string', valueHint: 'NAME', description: 'the text field of JSON lines', default: 'text' },
  split: { type: 'enum', options: [...SPLITS], description: 'what is a document in a text file', default: 'file' },
  format: { type: 'enum', options: [...FORMATS], description: 'read files of any name as this' },
  'piece-paragraphs': {
    type: 'string',
    valueHint: 'N',
    description: 'cut long texts at blank lines into pieces of N paragraphs; 0: never',
    default: '400',
  },
  'skip-bad': { type: 'boolean', description: 'leave out what cannot be read, and list it in the manifest' },
  rank: {
    type: 'string',
    valueHint: 'I',
    description: 'of several processes, this one takes input files I, I + N, ...',
    default: '0',
  },
  ranks: { type: 'string', valueHint: 'N', description: 'how many processes share the inputs', default: '1' },
  workers: { type: 'string', valueHint: 'N', description: 'worker threads (default: one per core)' },
  offline: { type: 'boolean', description: 'use what is downloaded and never the network' },
  force: { type: 'boolean', description: 'begin anew, whatever the folder holds' },
  ...jsonArgs,
};

/** A count with an optional k, M, G or T (decimal). */
function amount(least: number): z.ZodType<number> {
  const message = `expected a whole number of at least ${least}, for example 100M`;
  return z
    .string({ error: message })
    .transform((given) => {
      const found = /^([\d_]+(?:\.\d+)?|\.\d+)([kKMGT])?$/.exec(given.trim());
      return found
        ? Math.round(Number(found[1]!.replaceAll('_', '')) * 1000 ** ' kMGT'.indexOf((found[2] ?? ' ').replace('K', 'k')))
        : NaN;
    })
    .refine((n) => Number.isSafeInteger(n) && n >= least, message);
}

const options = z.object({
  kind: z.literal('text', { error: 'expected text, the only kind of data so far' }),
  out: z.string({ error: 'expected a folder' }),
  tokenizer: text,
  'train-bpe': whole(257, 65536).optional(),
  'train-bpe-bytes': amount(1),
  'shard-tokens': amount(1),
  'validation-tokens': amount(0),
  'end-token': z.enum(END_TOKENS),
  column: z.string(),
  field: z.string(),
  split: z.enum(SPLITS),
  format: z.enum(FORMATS).optional(),
  'piece-paragraphs': whole(0),
  'skip-bad': flag,
  rank: whole(0),
  ranks: whole(1),
  workers: whole(1, 1024).optional(),
  offline: flag,
  force: flag,
  json: flag,
});

export const dataCommand = defineCliCommand({
  name: 'data',
  description: 'text into token files for training',
  args,
  variadic: true,
  options,
  examples: [
    { command: 'matmamba data text ./books.jsonl.xz --out ./data --train-bpe 4096', says: 'a small vocabulary of its own' },
    {
      command: "matmamba data text './texts/**/*.txt' --out ./data --tokenizer ./model",
      says: "a model's tokenizer; every file is a document",
    },
    {
      command: "matmamba data text 'hub:HuggingFaceFW/fineweb/sample/10BT/*.parquet' --out ./fineweb",
      says: "FineWeb with GPT-2's vocabulary",
    },
    {
      command: 'matmamba data text ./parquet --out ./data --rank 0 --ranks 4',
      says: 'a quarter of the files; ranks 1 to 3 run elsewhere',
    },
  ],
  notes: [
    'Inputs: Parquet (.parquet), JSON lines (.jsonl, .ndjson, .json) and text (.txt, .md), the latter two also with .gz, .xz or .zst. ' +
      "Output: shards in llm.c's format (256 int32: magic 20240520, version 1, number of tokens; then uint16), val_000000.bin first, then " +
      'train_000001.bin and so on; manifest.json with counts and hashes; tokenizer.json unless it is GPT-2\u2019s.',
    'Stopped or killed, the same command goes on where it was, and the files are those of an unbroken run. Other options or changed inputs are ' +
      'refused, unless --force begins anew. Datasets of the hub are downloaded into its cache; HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE hold.',
  ],
  run: prepare,
});

async function prepare(given: z.output<typeof options>, { positionals }: CheckedArguments, io: Io): Promise<void> {
  if (given.rank >= given.ranks)
    throw new UsageError(
      `--rank is ${given.rank}, but there are ${given.ranks} ranks`,
      'ranks are counted from 0; say how many with --ranks',
    );
  if (given.tokenizer !== undefined && given['train-bpe'] !== undefined)
    throw new UsageError('--tokenizer and --train-bpe were both given', 'give one of them');
  const bars = new Bars();
  let result: PrepareTextResult;
  try {
    result = await prepareText({
      inputs: positionals.slice(1),
      out: given.out,
      tokenizer: given.tokenizer,
      trainBpe: given['train-bpe'],
      ...(given['train-bpe'] === undefined ? {} : { trainBpeBytes: given['train-bpe-bytes'] }),
      shardTokens: given['shard-tokens'],
      validationTokens: given['validation-tokens'],
      endToken: given['end-token'],
      column: given.column,
      field: given.field,
      split: given.split,
      format: given.format,
      pieceParagraphs: given['piece-paragraphs'],
      skipBad: given['skip-bad'],
      rank: given.rank,
      ranks: given.ranks,
      workers: given.workers,
      force: given.force,
      hub: {
        ...hubSettings(),
        ...(given.offline ? { localFilesOnly: true } : {}),
        onDownload: ({ file, loadedBytes, totalBytes }) => bars.download(file, loadedBytes, totalBytes),
      },
      signal: io.signal,
      onProgress: (progress) => bars.show(progress),
      onWarning: (message) => {
        bars.end();
        io.warn(message);
      },
    });
  } finally {
    bars.end();
  }
  report(result, given, io);
}

function report(
  { manifest, engine, workers, textBytes, tokens, seconds, resumed }: PrepareTextResult,
  given: z.output<typeof options>,
  io: Io,
): void {
  const { shards, counts, tokenizer } = manifest;
  const rates = { textBytesPerSecond: textBytes / seconds, tokensPerSecond: tokens / seconds };
  if (given.json) {
    io.json({
      out: given.out,
      tokens: manifest.tokens,
      ...counts,
      tokenizer: tokenizer.name,
      vocabSize: tokenizer.vocabSize,
      endTokenId: tokenizer.endTokenId,
      shards: shards.length,
      engine,
      workers,
      resumed,
      thisRun: { textBytes, tokens, seconds, ...rates },
    });
    return;
  }
  const { train, val } = manifest.tokens;
  const nothing = tokens === 0 && resumed;
  const rows: [string, string][] = [
    [
      'folder',
      `${given.out}: ${grouped(shards.length)} shards with ${grouped(train)} tokens to train on, ${grouped(val)} for validation`,
    ],
    [
      'documents',
      `${grouped(counts.documents)}, ${formatBytes(counts.textBytes)} of text${counts.skipped > 0 ? `; ${grouped(counts.skipped)} left out (see the manifest)` : ''}`,
    ],
    ['tokenizer', `${tokenizer.name}, ${grouped(tokenizer.vocabSize)} ids, end token ${tokenizer.endTokenId}`],
    [
      'this run',
      nothing
        ? 'nothing to do: the data is complete'
        : `${formatBytes(textBytes)} in ${formatSeconds(seconds)}, ${formatBytes(rates.textBytesPerSecond)}/s, ${formatCount(rates.tokensPerSecond)} tokens/s, ${workers} workers`,
    ],
  ];
  io.line(fields(rows, io.columns));
}

/** One bar at a time: downloads and work take turns. */
class Bars {
  #progress: Progress | undefined;
  #label = '';

  show({ stage, textBytes, totalBytes }: PrepareProgress): void {
    this.#draw(stage === 'tokenise' ? 'tokenising' : 'training the tokenizer', textBytes, totalBytes);
  }

  download(file: string, loadedBytes: number, totalBytes: number): void {
    // While text is worked on, the next file arrives in the background.
    if (this.#label === '' || this.#label.startsWith('download')) this.#draw(`download ${file}`, loadedBytes, totalBytes);
  }

  #draw(label: string, done: number, total: number): void {
    if (label !== this.#label) {
      this.end();
      this.#progress = new Progress({ label, format: formatBytes });
      this.#label = label;
    }
    this.#progress?.update(done, total);
  }

  end(): void {
    this.#progress?.end();
    this.#label = '';
  }
}

/** The hub's own environment variables; the cache's are read by its library. */
function hubSettings(): { endpoint?: string; token?: string; timeoutMs?: number; localFilesOnly?: boolean } {
  const { HF_ENDPOINT: endpoint, HF_TOKEN: token, HF_HUB_DOWNLOAD_TIMEOUT: timeout, HF_HUB_OFFLINE: offline } = process.env;
  return {
    ...(endpoint ? { endpoint } : {}),
    ...(token ? { token } : {}),
    ...(Number(timeout) > 0 ? { timeoutMs: 1000 * Number(timeout) } : {}),
    ...(/^(?:1|on|yes|true)$/i.test(offline ?? '') ? { localFilesOnly: true } : {}),
  };
}
