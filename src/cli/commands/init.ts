/** `matmamba init`: a new model with random weights. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { WEIGHT_DTYPES } from '../../backends/backend.ts';
import { describeModel, sizeAt } from '../../models/description.ts';
import { PRESET_NAMES } from '../../models/presets.ts';
import { randomWeights } from '../../models/weight-sources.ts';
import { UsageError } from '../arguments.ts';
import { defineCliCommand } from '../command.ts';
import type { Io } from '../io.ts';
import { specOf } from '../models.ts';
import { flag, jsonArgs, text, whole } from '../options.ts';
import { withProgress } from '../progress.ts';
import { formatBytes, formatCount, formatSeconds } from '../text-layout.ts';
import { checkFolderIsFree, checkFormat, writeModel } from '../write-model.ts';

const args: ArgsDef = {
  preset: { type: 'enum', options: [...PRESET_NAMES], description: 'a published shape' },
  config: { type: 'string', valueHint: 'FILE', description: 'a config.json of any shape, in place of a preset' },
  out: { type: 'string', valueHint: 'DIR', description: 'the folder to write (needed)' },
  seed: { type: 'string', valueHint: 'N', description: 'seed of the random numbers', default: '0' },
  dtype: { type: 'enum', options: [...WEIGHT_DTYPES], description: 'storage of the weights', default: 'f32' },
  format: { type: 'enum', options: ['safetensors', 'pytorch'], description: 'file format', default: 'safetensors' },
  force: { type: 'boolean', description: 'replace a model that is there' },
  ...jsonArgs,
};

const options = z.object({
  preset: text,
  config: text,
  out: text,
  seed: whole(0),
  dtype: z.enum(WEIGHT_DTYPES).default('f32'),
  format: z.enum(['safetensors', 'pytorch']).default('safetensors'),
  force: flag,
  json: flag,
});

export const initCommand = defineCliCommand({
  name: 'init',
  description: 'a new model with random weights, as training starts from',
  args,
  options,
  examples: [
    { command: 'matmamba init --preset lm-130m --out my-model', says: 'a published shape, float32' },
    { command: 'matmamba init --config config.json --out my-model --dtype bf16 --seed 7', says: 'your own shape' },
    { command: 'matmamba init --preset vision-35m --out vision --format pytorch', says: 'for the original implementation' },
  ],
  notes: [
    'The same seed gives the same weights on every machine. Weights are written as they are drawn: any size needs little memory.',
  ],
  run: initialise,
});

async function initialise(given: z.output<typeof options>, _checked: unknown, io: Io): Promise<void> {
  const { out: folder, dtype, format, seed } = given;
  if (folder === undefined) throw new UsageError('--out is missing', 'name the folder to write: --out DIR');
  if (given.preset === undefined && given.config === undefined) {
    throw new UsageError('--preset or --config is missing', `presets: ${PRESET_NAMES.join(', ')}`);
  }
  checkFormat(format, dtype);
  const description = describeModel(await specOf(undefined, given, io));
  await checkFolderIsFree(folder, given.force === true);
  const start = performance.now();
  await withProgress({ label: 'writing', format: formatCount }, (progress) =>
    writeModel(description, { folder, format, dtype, sourceOf: randomWeights(seed), signal: io.signal, progress }),
  );
  const seconds = (performance.now() - start) / 1000;
  const { parameters, bytes } = sizeAt(description, description.dModel);
  if (given.json) io.json({ folder, kind: description.kind, parameters, bytes: bytes[dtype], dtype, format, seed, seconds });
  else
    io.line(
      `${folder}: ${formatCount(parameters)} parameters, ${formatBytes(bytes[dtype])} in ${dtype}, ${formatSeconds(seconds)}`,
    );
}
