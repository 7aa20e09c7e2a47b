/** `matmamba convert`: a model in another file format or dtype, its tokenizer and config along with it. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { WEIGHT_DTYPES, type WeightStorage } from '../../backends/backend.ts';
import { type Checkpoint, type TensorEntry, openCheckpoint } from '../../checkpoint/index.ts';
import type { MambaConfig } from '../../models/config.ts';
import { paddedVocabSize } from '../../models/config.ts';
import { type ModelDescription, describeModel, sizeAt } from '../../models/description.ts';
import { loadFolderTokenizer, saveTokenizerFiles } from '../../models/folder-tokenizer.ts';
import { trimVocabulary } from '../../models/language-shape.ts';
import { modelEntries } from '../../models/load.ts';
import { PRESET_NAMES } from '../../models/presets.ts';
import { checkpointWeights } from '../../models/weight-sources.ts';
import type { CheckedArguments } from '../arguments.ts';
import { defineCliCommand } from '../command.ts';
import type { Io } from '../io.ts';
import { type LocatedModel, locateModel, specOf } from '../models.ts';
import { flag, jsonArgs, modelArgs, modelOptions, text } from '../options.ts';
import { withProgress } from '../progress.ts';
import { formatBytes, formatCount, formatSeconds } from '../text-layout.ts';
import { checkFolderIsFree, checkFormat, writeModel } from '../write-model.ts';

const args: ArgsDef = {
  src: { type: 'positional', required: true, description: 'a folder, a weights file (.safetensors, .bin, .pt) or a hub id' },
  dst: { type: 'positional', required: true, description: 'the folder to write' },
  format: { type: 'enum', options: ['safetensors', 'pytorch'], description: 'file format', default: 'safetensors' },
  dtype: { type: 'enum', options: [...WEIGHT_DTYPES], description: 'storage of the matrices (default: as they are)' },
  preset: { type: 'enum', options: [...PRESET_NAMES], description: 'the shape of weights that lie without a config.json' },
  config: { type: 'string', valueHint: 'FILE', description: 'their config.json, in place of a preset' },
  revision: modelArgs.revision,
  offline: modelArgs.offline,
  force: { type: 'boolean', description: 'replace a model that is there' },
  ...jsonArgs,
};

const { revision, offline } = modelOptions;
const options = z.object({
  format: z.enum(['safetensors', 'pytorch']).default('safetensors'),
  dtype: z.enum(WEIGHT_DTYPES).optional(),
  preset: text,
  config: text,
  revision,
  offline,
  force: flag,
  json: flag,
});

export const convertCommand = defineCliCommand({
  name: 'convert',
  description: 'a model in another file format or dtype; config and tokenizer are carried along',
  args,
  options,
  examples: [
    { command: 'matmamba convert owner/model ./model --dtype bf16', says: 'a hub model as safetensors in bfloat16' },
    { command: 'matmamba convert ckpt.pt ./model --preset lm-130m', says: "a trainer's checkpoint" },
    { command: 'matmamba convert ./model ./model-int8 --dtype int8', says: 'a quarter of the bytes' },
    { command: 'matmamba convert ./model ./original --format pytorch', says: 'for the original implementation' },
  ],
  notes: [
    'Norms, biases and the few other small tensors are float32 in every dtype. A trainer checkpoint (.pt) may hold the optimiser too: ' +
      'only the model is taken. Weights are copied piece by piece: any size needs little memory.',
  ],
  run: convert,
});

async function convert(given: z.output<typeof options>, { positionals }: CheckedArguments, io: Io): Promise<void> {
  const [src, folder] = positionals as [string, string];
  if (given.dtype) checkFormat(given.format, given.dtype);
  await checkFolderIsFree(folder, given.force === true);
  const located = await locateModel({ model: src, revision: given.revision, offline: given.offline }, io);
  const description = describeModel(await specOf(located, given, io));
  const start = performance.now();
  const checkpoint = trimmed(await openCheckpoint(located.path, { signal: io.signal }), description, located, io);
  let dtype: WeightStorage;
  try {
    const entries = modelEntries(checkpoint, description.parameters, located.name);
    dtype = given.dtype ?? storedAs(entries, description, given.format);
    await withProgress({ label: 'writing', format: formatCount }, (progress) =>
      writeModel(description, {
        folder,
        format: given.format,
        dtype,
        sourceOf: checkpointWeights(entries, io.signal),
        signal: io.signal,
        progress,
      }),
    );
  } finally {
    await checkpoint.close();
  }
  if (description.kind === 'language') await saveTokenizerFiles(await loadFolderTokenizer(located.folder), folder);
  const seconds = (performance.now() - start) / 1000;
  const { parameters, bytes } = sizeAt(description, description.dModel);
  if (given.json)
    io.json({ folder, kind: description.kind, parameters, bytes: bytes[dtype], dtype, format: given.format, seconds });
  else
    io.line(
      `${folder}: ${formatCount(parameters)} parameters, ${formatBytes(bytes[dtype])} in ${dtype}, ${formatSeconds(seconds)}`,
    );
}

function trimmed(checkpoint: Checkpoint, { kind, config }: ModelDescription, { folder, json }: LocatedModel, io: Io): Checkpoint {
  if (kind !== 'language') return checkpoint;
  return trimVocabulary({ folder, json, checkpoint }, paddedVocabSize(config as MambaConfig), io.warn);
}

/** The dtype of the largest matrix; float32 for what has no storage of its own. */
function storedAs(entries: ReadonlyMap<string, TensorEntry>, { parameters }: ModelDescription, format: string): WeightStorage {
  const sizes = [...parameters.declared.values()]
    .filter(({ layout }) => layout === 'matrix')
    .map(({ name }) => entries.get(name)!);
  const { dtype } = sizes.reduce((most, entry) => (entry.byteLength > most.byteLength ? entry : most));
  if (dtype === 'i8' || dtype === 'u8') return format === 'pytorch' ? 'f32' : dtype === 'i8' ? 'int8' : 'int4';
  return dtype === 'bf16' || dtype === 'f16' ? dtype : 'f32';
}
