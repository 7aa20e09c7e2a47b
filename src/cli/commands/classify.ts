/** `matmamba classify`: names what is in images. */

import { stat } from 'node:fs/promises';
import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { MatMambaError } from '../../errors.ts';
import { readImage } from '../../vision/decode.ts';
import { readLabels } from '../../vision/labels.ts';
import { imageTransform } from '../../vision/preprocess.ts';
import { type CheckedArguments, UsageError } from '../arguments.ts';
import { defineCliCommand } from '../command.ts';
import type { Io } from '../io.ts';
import { loadVisionModel, readConfigFile } from '../models.ts';
import {
  deviceArgs,
  deviceOptions,
  deviceSettings,
  flag,
  jsonArgs,
  modelArgs,
  modelOptions,
  text,
  whole,
  widthArgs,
  widthOf,
  widthOptions,
} from '../options.ts';
import { withProgress } from '../progress.ts';

const args: ArgsDef = {
  images: { type: 'positional', required: true, description: 'image files: JPEG, PNG, WebP, GIF, AVIF, TIFF' },
  ...modelArgs,
  model: {
    ...modelArgs.model,
    description: 'the vision model: a folder, a weights file, or an id of the Hugging Face hub (needed)',
  },
  ...widthArgs,
  ...deviceArgs,
  top: { type: 'string', valueHint: 'N', description: 'likeliest classes to name', default: '5' },
  labels: {
    type: 'string',
    valueHint: 'FILE',
    description: "names of the classes: one a line, or JSON (default: the model's labels.txt or labels.json)",
  },
  ...jsonArgs,
};

const options = z.object({ ...modelOptions, ...widthOptions, ...deviceOptions, top: whole(1), labels: text, json: flag });

export const classifyCommand = defineCliCommand({
  name: 'classify',
  description: 'name what is in images with a vision model, at the width of your choice',
  args,
  variadic: true,
  options,
  examples: [
    { command: 'matmamba classify cat.jpg --model ./vision --labels imagenet.txt', says: 'the five likeliest classes' },
    {
      command: 'matmamba classify *.jpg --model ./vision --level 4 --top 1 --json',
      says: 'many images, a quarter of the width, for programs',
    },
  ],
  notes: [
    'Images are turned upright, their short side is scaled to S * 256 / 224 (S is the size the model takes; models below 128 pixels: S), the ' +
      "centre is cut out and normalised by ImageNet's mean and deviation. A preprocessor_config.json in the model's folder (image_mean, " +
      'image_std, crop_pct) changes that. With --json every image is an object { image, top: [{ class, label, probability, score }] }, or ' +
      '{ image, error: { code, message } } for one that cannot be read; then the exit code is 1.',
  ],
  run: classify,
});

async function classify(given: z.output<typeof options>, { positionals }: CheckedArguments, io: Io): Promise<void> {
  const width = widthOf(given);
  if (given.model === undefined)
    throw new UsageError('--model is missing', 'the package carries no vision model: name a folder or a hub id');
  const { vision, folder } = await loadVisionModel(given, deviceSettings(given, io), io);
  await using model = vision;
  const { nClasses, imageSize } = model.config;
  const labels = await labelsOf(given.labels, folder);
  if (labels && labels.length !== nClasses) io.warn(`there are ${labels.length} labels for ${nClasses} classes`);
  const transform = imageTransform(imageSize, await readConfigFile(`${folder}/preprocessor_config.json`));
  const failures: MatMambaError[] = [];
  await withProgress({ label: 'classify', format: (n) => `${Math.round(n * 10) / 10} images` }, async (progress) => {
    for (const [i, image] of positionals.entries()) {
      try {
        const scores = await model.forward(await readImage(image, transform), { ...width, signal: io.signal });
        const top = likeliest(scores.array as Float32Array, given.top);
        progress.end();
        show(image, top, labels, given.json === true, positionals.length > 1, io);
      } catch (error) {
        // One bad image does not take the others along.
        if (!(error instanceof MatMambaError) || !['FILE', 'FORMAT'].includes(error.code)) throw error;
        failures.push(error);
        if (given.json) io.json({ image, error: { code: error.code, message: error.message } });
        else if (positionals.length > 1) io.note(`error ${error.code}: ${error.message}`);
      }
      progress.update(i + 1, positionals.length);
    }
  });
  if (failures.length === 0) return;
  if (positionals.length === 1) throw failures[0]!;
  throw new MatMambaError(failures[0]!.code, `${failures.length} of ${positionals.length} images could not be read`);
}

interface Guess {
  readonly class: number;
  readonly probability: number;
  /** The model's score (logit). */
  readonly score: number;
}

/** The classes of the highest scores, with their share of the softmax. */
function likeliest(scores: Float32Array, count: number): Guess[] {
  const max = scores.reduce((most, score) => Math.max(most, score), -Infinity);
  const total = scores.reduce((sum, score) => sum + Math.exp(score - max), 0);
  const order = Array.from(scores, (score, i) => ({ class: i, probability: Math.exp(score - max) / total, score }));
  return order.sort((a, b) => b.score - a.score || a.class - b.class).slice(0, count);
}

function show(
  image: string,
  top: readonly Guess[],
  labels: readonly string[] | undefined,
  asJson: boolean,
  named: boolean,
  io: Io,
): void {
  const nameOf = (index: number): string | undefined => labels?.[index];
  if (asJson) {
    io.json({
      image,
      top: top.map((guess) => ({
        class: guess.class,
        label: nameOf(guess.class) ?? null,
        probability: guess.probability,
        score: guess.score,
      })),
    });
    return;
  }
  if (named) io.line(image);
  for (const { class: index, probability } of top) {
    io.line(`${named ? '  ' : ''}${`${(100 * probability).toFixed(1)}%`.padStart(6)}  ${nameOf(index) ?? `class ${index}`}`);
  }
}

async function labelsOf(path: string | undefined, folder: string): Promise<string[] | undefined> {
  if (path !== undefined) return readLabels(path);
  for (const name of ['labels.txt', 'labels.json']) {
    const beside = `${folder}/${name}`;
    if (await stat(beside).catch(() => undefined)) return readLabels(beside);
  }
  return undefined;
}
