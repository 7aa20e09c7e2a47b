/** `matmamba generate`: continues a text, token by token. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { ProfileTotals } from '../../bench/profile-totals.ts';
import { resolveWidths } from '../../elastic/granularity.ts';
import { MatMambaError } from '../../errors.ts';
import type { MatMambaLMHeadModel } from '../../models/language-model.ts';
import {
  type GenerateOptions,
  type GeneratedPiece,
  type Tokenizer,
  defaultTokenizerFor,
  generate,
  loadTokenizer,
} from '../../text/index.ts';
import { type CheckedArguments, UsageError } from '../arguments.ts';
import { defineCliCommand } from '../command.ts';
import type { Io } from '../io.ts';
import { loadLanguageModel } from '../models.ts';
import {
  deviceArgs,
  deviceOptions,
  deviceSettings,
  flag,
  jsonArgs,
  modelArgs,
  modelOptions,
  real,
  text,
  whole,
  widthArgs,
  widthName,
  widthOf,
  widthOptions,
} from '../options.ts';
import { profileTable } from '../profile-table.ts';
import { promptOf } from '../prompt.ts';
import { formatNumber } from '../text-layout.ts';
import { type TimedModel, timedModel } from '../timed-generation.ts';

const args: ArgsDef = {
  prompt: {
    type: 'positional',
    required: false,
    description: "the text to continue; '-' or a pipe: standard input (default: a sentence to try)",
  },
  ...modelArgs,
  ...widthArgs,
  ...deviceArgs,
  'max-tokens': { type: 'string', valueHint: 'N', description: 'tokens to generate at most', default: '64' },
  temperature: {
    type: 'string',
    valueHint: 'X',
    description: 'how freely to choose; 0 takes the likeliest token',
    default: '0.8',
  },
  'top-k': { type: 'string', valueHint: 'N', description: 'choose among the N likeliest tokens; 0: all', default: '0' },
  'top-p': {
    type: 'string',
    valueHint: 'X',
    description: 'choose among the likeliest tokens that hold X of the probability',
    default: '0.95',
  },
  'min-p': {
    type: 'string',
    valueHint: 'X',
    description: 'leave out tokens less than X times as likely as the likeliest',
    default: '0',
  },
  'repetition-penalty': {
    type: 'string',
    valueHint: 'X',
    description: 'above 1 makes tokens that were used less likely',
    default: '1',
  },
  seed: { type: 'string', valueHint: 'N', description: 'repeats the same choices (default: a new one each time)' },
  stop: { type: 'string', valueHint: 'TEXT', description: 'end before this text; may be repeated' },
  'ignore-end': { type: 'boolean', description: 'go on after the end of a text' },
  tokenizer: { type: 'string', valueHint: 'FILE', description: 'tokenizer.json or its folder, where the model has none' },
  profile: { type: 'boolean', description: 'print where the time went, op by op' },
  ...jsonArgs,
};

const options = z.object({
  ...modelOptions,
  ...widthOptions,
  ...deviceOptions,
  'max-tokens': whole(1),
  temperature: real(0),
  'top-k': whole(0),
  'top-p': real(0, 1),
  'min-p': real(0, 1),
  'repetition-penalty': real(0),
  seed: whole(0).optional(),
  'ignore-end': flag,
  tokenizer: text,
  profile: flag,
  json: flag,
});

export const generateCommand = defineCliCommand({
  name: 'generate',
  description: 'continue a text with a language model, at the width of your choice',
  args,
  variadic: true,
  options,
  examples: [
    { command: 'matmamba generate "It was a dark night and"', says: 'the model in the package' },
    { command: 'matmamba generate "The sea" --level 4 --dtype int8', says: 'a quarter of the width, weights in 8 bits' },
    { command: 'matmamba generate "The sea" --dims 384,384,192,192,192,192,384,384', says: 'a width for every layer' },
    { command: 'cat story.txt | matmamba generate --max-tokens 200 --seed 1', says: 'the prompt from a pipe' },
    { command: 'matmamba generate "Hello" --json | jq -r .text', says: 'for programs' },
  ],
  notes: [
    'The text goes to standard output as it is made; a closing line with the speed goes to standard error. With --json every piece is an ' +
      'object { text, ids } and the last line is { done: true, finishReason, prompt, text, tokens, dims, dtype, device, threads, prefill, decode }. ' +
      'Ctrl-C ends the text where it is.',
  ],
  run: generateText,
});

type Options = z.output<typeof options>;

async function generateText(given: Options, checked: CheckedArguments, io: Io): Promise<void> {
  const width = widthOf(given);
  const prompt = await promptOf(checked.positionals, io);
  const { lm, name } = await loadLanguageModel(given, deviceSettings(given, io), io);
  await using model = lm;
  const { dModel } = model.config;
  const dims = resolveWidths(
    width,
    model.backbone.layers.map(({ mixer }) => mixer),
    dModel,
    (i) => `layer ${i}`,
  );
  const tokenizer = given.tokenizer === undefined ? await tokenizerOf(model, name) : await loadTokenizer(given.tokenizer);
  const totals = { prefill: new ProfileTotals(), decode: new ProfileTotals() };
  using timed = timedModel(model, width, given.profile ? (ops, phase) => totals[phase].add(ops) : undefined);
  const pieces = generate(timed, tokenizer, prompt, generateOptions(given, checked, io));
  const result = await showPieces(pieces, given.json === true, prompt, io);
  const { device, threads, summary } = model.capabilities();
  const how = { dims, dtype: model.dtype, device, threads };
  report(result, prompt, timed, how, `${widthName(dims, dModel)}, ${model.dtype}, ${summary}`, given, io);
  if (given.profile) {
    for (const [phase, profile] of Object.entries(totals)) {
      if (profile.sorted.length === 0) continue;
      if (given.json) io.json({ profile: phase, ops: profile.sorted });
      else io.note(`\n${phase}\n${profileTable(profile.sorted, io.columns)}`);
    }
  }
}

function generateOptions(given: Options, checked: CheckedArguments, io: Io): GenerateOptions {
  if (given['top-p'] === 0) throw new UsageError('--top-p is 0', 'above 0; for the likeliest token alone use --temperature 0');
  if (given['repetition-penalty'] === 0) throw new UsageError('--repetition-penalty is 0', 'above 0; 1 changes nothing');
  return {
    maxNewTokens: given['max-tokens'],
    temperature: given.temperature,
    topK: given['top-k'],
    topP: given['top-p'],
    minP: given['min-p'],
    repetitionPenalty: given['repetition-penalty'],
    seed: given.seed,
    stop: checked.all('stop'),
    ignoreEnd: given['ignore-end'],
    signal: io.signal,
  };
}

interface Shown {
  readonly text: string;
  readonly tokens: number;
  /** `aborted` by Ctrl-C or a closed pipe. */
  readonly finishReason: string;
}

/** Prints pieces as they come. */
async function showPieces(pieces: AsyncIterable<GeneratedPiece>, asJson: boolean, prompt: string, io: Io): Promise<Shown> {
  let [shown, tokens, finishReason] = ['', 0, 'aborted'];
  // The prompt is shown too, so that the result reads as one text.
  if (!asJson) io.write(prompt);
  try {
    for await (const piece of pieces) {
      shown += piece.text;
      tokens += piece.ids.length;
      finishReason = piece.finishReason ?? finishReason;
      if (asJson) io.json({ text: piece.text, ids: piece.ids });
      else io.write(piece.text);
    }
  } catch (error) {
    if (!asJson) io.line();
    if (!(error instanceof MatMambaError && error.code === 'ABORTED')) throw error;
    return { text: shown, tokens, finishReason };
  }
  if (!asJson) io.line();
  return { text: shown, tokens, finishReason };
}

function report(
  { text: shown, tokens, finishReason }: Shown,
  prompt: string,
  { times }: TimedModel,
  how: Readonly<Record<string, unknown>>,
  spokenHow: string,
  { json }: Options,
  io: Io,
): void {
  const { promptTokens, prefillMs, decodedTokens, decodeMs } = times;
  const rate = (count: number, ms: number): number | null => (count > 0 && ms > 0 ? (1000 * count) / ms : null);
  const speeds = {
    prefill: { tokens: promptTokens, ms: prefillMs, tokensPerSecond: rate(promptTokens, prefillMs) },
    decode: { tokens: decodedTokens, ms: decodeMs, tokensPerSecond: rate(decodedTokens, decodeMs) },
  };
  if (json) {
    io.json({ done: true, finishReason, prompt, text: shown, tokens, ...how, ...speeds });
    return;
  }
  const spoken = ({ tokens: count, tokensPerSecond }: { tokens: number; tokensPerSecond: number | null }): string =>
    tokensPerSecond === null ? `${count} tokens` : `${count} tokens at ${formatNumber(tokensPerSecond)}/s`;
  io.note(`[prompt ${spoken(speeds.prefill)}, decode ${spoken(speeds.decode)}; ${spokenHow}]`);
}

/** @throws TOKEN with what to do when neither the folder nor the vocabulary tells the tokenizer */
async function tokenizerOf(model: MatMambaLMHeadModel, name: string): Promise<Tokenizer> {
  if (model.tokenizer) return model.tokenizer;
  try {
    return await defaultTokenizerFor(model.config.vocabSize);
  } catch (error) {
    if (!(error instanceof MatMambaError) || error.code !== 'TOKEN') throw error;
    throw new MatMambaError(
      'TOKEN',
      `${name} has no tokenizer.json and its vocabulary of ${model.config.vocabSize} is not GPT-2's`,
      {
        hint: 'give --tokenizer FILE',
        cause: error,
      },
    );
  }
}
