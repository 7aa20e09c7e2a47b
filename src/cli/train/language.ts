/** `matmamba train lm`: a language model, trained at several widths at once. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { SAMPLINGS } from '../../data/index.ts';
import type { Communicator } from '../../distributed/index.ts';
import { trainLanguageModel } from '../../train/language-run.ts';
import { UsageError } from '../arguments.ts';
import type { Io } from '../io.ts';
import { text, whole } from '../options.ts';
import { type CommonOptions, dividing, gpuRows, outOf, presetOf, recipeOf, shapeOf, trainingDevice } from './options.ts';
import { Reporter } from './reporter.ts';

export const languageArgs = {
  vocabulary: { type: 'string', valueHint: 'N', description: 'lm: size of the vocabulary' },
  tokenizer: {
    type: 'string',
    valueHint: 'DIR',
    description: 'lm: folder of the tokenizer that the model carries along (default: the data folder)',
  },
  length: { type: 'string', valueHint: 'N', description: 'lm: tokens of a sequence' },
  sampling: {
    type: 'enum',
    options: [...SAMPLINGS],
    description: 'lm: windows anywhere, or each once an epoch (default permuted)',
  },
  'validation-windows': { type: 'string', valueHint: 'N', description: 'lm: held-out sequences (default 32)' },
} as const satisfies ArgsDef;

export const languageOptions = {
  vocabulary: whole(1).optional(),
  tokenizer: text,
  length: whole(1).optional(),
  sampling: z.enum(SAMPLINGS).optional(),
  'validation-windows': whole(1).optional(),
};

const schema = z.object(languageOptions);
const MICRO_BATCH = 4;
const VALIDATION_WINDOWS = 32;

export async function trainLanguage(
  given: CommonOptions & z.output<typeof schema>,
  data: readonly string[],
  communicator: Communicator,
  io: Io,
): Promise<void> {
  const [first] = data;
  if (first === undefined)
    throw new UsageError('--data is missing', 'make token files first: matmamba data text INPUT --out DIR');
  const preset = presetOf('language', given.preset ?? 'books-10m');
  const length = given.length ?? preset.lengthTokens;
  const device = trainingDevice(given, io);
  const { dModel = 768, nLayer = 24 } = { ...preset.model, ...shapeOf(given) };
  const rows = (given.batch ?? preset.batch) / communicator.size;
  const microBatch = device.device === 'cpu' ? MICRO_BATCH : dividing(rows, gpuRows(length, dModel, nLayer));
  const recipe = recipeOf(given, preset, microBatch);
  const report = new Reporter(recipe, 'tokens', length, given.json === true, io);
  const summary = await trainLanguageModel({
    out: outOf(given),
    data,
    validationData: given.validation ?? (await heldOutOf(first)),
    tokenizer: given.tokenizer ?? first,
    sampling: given.sampling ?? 'permuted',
    length,
    config: { ...preset.model, ...shapeOf(given), ...(given.vocabulary === undefined ? {} : { vocabSize: given.vocabulary }) },
    initFrom: given['init-from'],
    validationWindows: given['validation-windows'] ?? VALIDATION_WINDOWS,
    recipe,
    recompute: given.recompute === true,
    validateEvery: given['validate-every'] ?? preset.validateEvery,
    saveEvery: given['save-every'],
    communicator,
    shardOptimizer: given['shard-optimizer'] === true,
    signal: io.signal,
    device,
    onStep: (record) => report.step(record),
    onValidation: (step, losses) => report.validation(step, losses),
  });
  if (communicator.rank === 0) report.end(summary.last, summary.bestLoss);
}

/** The data folder itself when it has held-out shards. */
async function heldOutOf(data: string): Promise<string | undefined> {
  const { readdir } = await import('node:fs/promises');
  const names = await readdir(data).catch(() => []);
  return names.some((name) => name.startsWith('val') && name.endsWith('.bin')) ? data : undefined;
}
