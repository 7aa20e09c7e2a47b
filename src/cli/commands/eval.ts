/** `matmamba eval`: the loss of a language model on held-out tokens, at any of its widths. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { TokenFile } from '../../data/token-file.ts';
import { type WidthOptions, resolveWidths } from '../../elastic/granularity.ts';
import { MatMambaError } from '../../errors.ts';
import type { MatMambaLMHeadModel } from '../../models/language-model.ts';
import { tensor } from '../../tensor/tensor.ts';
import type { CheckedArguments } from '../arguments.ts';
import { defineCliCommand } from '../command.ts';
import type { Io } from '../io.ts';
import { loadLanguageModel } from '../models.ts';
import {
  deviceArgs,
  deviceOptions,
  deviceSettings,
  dimsLists,
  flag,
  jsonArgs,
  levelOf,
  modelArgs,
  modelOptions,
  whole,
  wholeList,
  widthArgs,
  widthName,
} from '../options.ts';
import { Progress } from '../progress.ts';
import { formatCount, formatNumber, formatSeconds, table } from '../text-layout.ts';

const args: ArgsDef = {
  tokens: {
    type: 'positional',
    required: true,
    description: 'a token file in the format of llm.c (256 int32, then uint16 tokens)',
  },
  ...modelArgs,
  level: { ...widthArgs.level, valueHint: 'N[,N...]', description: 'levels to measure, for example 1,2,4,8 (default 1)' },
  dims: { ...widthArgs.dims, description: 'dims to measure: one number, or one per layer; may be repeated' },
  ...deviceArgs,
  windows: { type: 'string', valueHint: 'N', description: 'windows to measure, from the start of the file', default: '32' },
  length: { type: 'string', valueHint: 'N', description: 'tokens of a window', default: '1024' },
  ...jsonArgs,
};

const LEVELS = wholeList(1, 'levels with commas between them, for example 1,2,4,8');
const options = z.object({
  ...modelOptions,
  ...deviceOptions,
  level: LEVELS.optional(),
  windows: whole(1),
  length: whole(1),
  json: flag,
});

export const evalCommand = defineCliCommand({
  name: 'eval',
  description: 'the loss of a language model on a token file, at any of its widths',
  args,
  options,
  examples: [
    { command: 'matmamba eval val.bin --level 1,2,4,8', says: 'the trained levels' },
    { command: 'matmamba eval val.bin --dims 384,384,384,384,192,192,192,192', says: 'a mix: one width per layer' },
    {
      command: 'matmamba eval val.bin --dims 288 --dims 96 --dtype int8 --json',
      says: 'two widths, weights in 8 bits, for programs',
    },
  ],
  notes: [
    'Window i reads tokens i*L to i*L + L and predicts each next one; every window starts with an empty state. The loss is the mean ' +
      'cross-entropy in nats a token, and in nats a byte of text, which compares models of different vocabularies (an end token has no ' +
      'bytes). With --json every granularity is one object { granularity: dims of every layer, level (where there is one), loss, ' +
      'perplexity, lossPerByte and bytes (where the tokenizer has bytes), tokens, seconds, tokensPerSecond, dtype }.',
  ],
  run: evaluate,
});

async function evaluate(given: z.output<typeof options>, checked: CheckedArguments, io: Io): Promise<void> {
  const widths = widthsOf(given.level, checked.all('dims'));
  const { windows, length } = given;
  await using file = await TokenFile.open(checked.positionals[0]!);
  if (file.length < windows * length + 1) {
    const fitting = Math.floor((file.length - 1) / length);
    throw new MatMambaError(
      'FORMAT',
      `${file.path} holds ${file.length} tokens; ${windows} windows of ${length} need ${windows * length + 1}`,
      {
        hint: fitting > 0 ? `--windows ${fitting} fits` : `a shorter --length fits, for example ${Math.max(1, file.length - 1)}`,
      },
    );
  }
  const { lm } = await loadLanguageModel(given, deviceSettings(given, io), io);
  await using model = lm;
  const { dModel } = model.config;
  const dims = widths.map((width) =>
    resolveWidths(
      width,
      model.backbone.layers.map(({ mixer }) => mixer),
      dModel,
      (i) => `layer ${i}`,
    ),
  );
  const progress = new Progress({ label: 'eval', format: (tokens) => `${formatCount(tokens)} tokens` });
  const rows: string[][] = [];
  try {
    for (const [i, width] of widths.entries()) {
      const start = performance.now();
      const { loss, bytes } = await meanLoss(model, file, width, windows, length, io.signal, (window) => {
        progress.update((i * windows + window) * length, widths.length * windows * length);
      });
      const seconds = (performance.now() - start) / 1000;
      const tokens = windows * length;
      const granularity = dims[i]!;
      if (given.json) {
        progress.end();
        const level = levelOf(granularity, dModel);
        io.json({
          granularity,
          ...(level === undefined ? {} : { level }),
          loss,
          perplexity: Math.exp(loss),
          ...(bytes === undefined ? {} : { lossPerByte: (loss * tokens) / bytes, bytes }),
          tokens,
          seconds,
          tokensPerSecond: tokens / seconds,
          dtype: model.dtype,
        });
      }
      rows.push([
        widthName(granularity, dModel),
        loss.toFixed(6),
        bytes === undefined ? '-' : ((loss * tokens) / bytes).toFixed(6),
        formatNumber(Math.exp(loss)),
        formatSeconds(seconds),
        formatNumber(tokens / seconds),
      ]);
    }
  } finally {
    progress.end();
  }
  if (given.json) return;
  const right = 'right' as const;
  const numbers = ['loss', 'per byte', 'perplexity', 'time', 'tokens/s'].map((title) => ({ title, align: right }));
  io.line(table([{ title: 'width' }, ...numbers], rows, io.columns));
}

/** @throws UsageError */
function widthsOf(levels: readonly number[] | undefined, dims: readonly string[]): WidthOptions[] {
  const mixes = dimsLists(dims).map((mixnmatchDims) => ({ mixnmatchDims }));
  const uniform = (levels ?? (mixes.length > 0 ? [] : [1])).map((mrlLevel) => ({ mrlLevel }));
  return [...uniform, ...mixes];
}

/** Mean cross-entropy over windows in nats a token, summed in float64, and the bytes of text that were predicted. */
async function meanLoss(
  model: MatMambaLMHeadModel,
  file: TokenFile,
  width: WidthOptions,
  windows: number,
  length: number,
  signal: AbortSignal,
  onWindow: (done: number) => void,
): Promise<{ loss: number; bytes: number | undefined }> {
  const bytesOf = tokenBytes(model);
  let sum = 0;
  let bytes = 0;
  for (let window = 0; window < windows; window++) {
    const tokens = await file.read(window * length, length + 1, model.vocabSize, signal);
    const ids = tensor(tokens.slice(0, length), [1, length]);
    const targets = tensor(tokens.slice(1), [1, length]);
    const losses = (await model.loss(ids, targets, { ...width, signal })).array as Float32Array;
    for (const loss of losses) sum += loss;
    if (bytesOf) for (const id of tokens.subarray(1)) bytes += bytesOf(id);
    if (!Number.isFinite(sum)) {
      throw new MatMambaError('WEIGHTS', `the loss of window ${window} is ${sum}`, {
        hint: 'training diverged, or these weights are no model',
      });
    }
    onWindow(window + 1);
  }
  return { loss: sum / (windows * length), bytes: bytes > 0 ? bytes : undefined };
}

/** Bytes of text that an id stands for; undefined where the tokenizer cannot tell. */
function tokenBytes({ tokenizer }: MatMambaLMHeadModel): ((id: number) => number) | undefined {
  if (!tokenizer?.bytes) return undefined;
  const { vocabSize, endTokenId } = tokenizer;
  const counts = Uint16Array.from({ length: vocabSize }, (_, id) => (id === endTokenId ? 0 : tokenizer.bytes!(id).length));
  return (id) => counts[id] ?? 0;
}
