/** Training a vision model: class folders of pictures in, a model trained at several widths out. */

import { MatMambaError } from '../errors.ts';
import { Permutation } from '../data/permutation.ts';
import { dimsOfLevel } from '../elastic/granularity.ts';
import type { MatMamba2VisionConfig } from '../models/config.ts';
import { MatMamba2Vision } from '../models/vision-model.ts';
import { tensor } from '../tensor/tensor.ts';
import type { Augmentation } from '../vision/augment.ts';
import { type ImageFolder, listImageFolder } from '../vision/image-folder.ts';
import { type ImageBatch, ImageReader, TrainingImages } from '../vision/image-loader.ts';
import type { MixingOptions } from '../vision/mixing.ts';
import { imageTransform } from '../vision/preprocess.ts';
import { FolderLog } from './run-log.ts';
import {
  type RecipeOptions,
  type RunOptions,
  type RunSummary,
  type TrainingDevice,
  deviceFacts,
  findResume,
  runTraining,
} from './run.ts';

/** Numbers by level. */
type ByLabel = Readonly<Record<string, number>>;

export interface VisionRunOptions extends Pick<
  RunOptions,
  'out' | 'recipe' | 'recompute' | 'validateEvery' | 'saveEvery' | 'communicator' | 'shardOptimizer' | 'signal' | 'onStep'
> {
  /** The folder of class folders to train on. */
  readonly data: string;
  /** The same, held out: class folders of the same names. None: no validation. */
  readonly validationData?: string | undefined;
  /** Held-out pictures measured, drawn once; all by default. */
  readonly validationImages?: number | undefined;
  /** Shape of a new model; it gets as many classes as there are folders. */
  readonly config: Partial<MatMamba2VisionConfig>;
  /** Bias of a new model's head. */
  readonly headBias: number;
  readonly mixing: MixingOptions;
  readonly augmentation: Augmentation;
  /** Start from these weights in place of random ones. */
  readonly initFrom?: string | undefined;
  /** Leave out pictures that cannot be decoded. */
  readonly skipBad: boolean;
  readonly device?: TrainingDevice | undefined;
  readonly onWarning?: ((message: string) => void) | undefined;
  /** Mean cross-entropy and the share of pictures whose likeliest class is right, by level; on rank 0. */
  readonly onValidation?: ((step: number, losses: ByLabel, accuracy: ByLabel) => void) | undefined;
}

/**
 * Trains, or goes on from the last checkpoint in the folder.
 * @throws see `runTraining`; FORMAT for a damaged picture or a folder without classes; CONFIG when the weights to start
 * from have another number of classes; DEVICE without sharp
 */
export async function trainVisionModel(options: VisionRunOptions): Promise<RunSummary> {
  const { out, recipe, communicator, mixing, augmentation, skipBad, onWarning } = options;
  const folder = await listImageFolder(options.data);
  const heldFolder =
    options.validationData === undefined ? undefined : await listImageFolder(options.validationData, folder.classes);
  const resume = await findResume(out, communicator);
  await using model = await openVisionModel(options, folder, resume?.folder ?? options.initFrom);
  model.labels = folder.classes;
  const { dModel, nLayer, imageSize, patchSize } = model.config;
  const decoding = { transform: imageTransform(imageSize), skipBad, onWarning: communicator.rank === 0 ? onWarning : undefined };
  const batch = recipe.microBatch * communicator.size;
  const training = new TrainingImages(new ImageReader(folder, decoding), {
    seed: recipe.seed,
    augmentation,
    mixing,
    batch,
    microBatches: microBatchesOfStep(recipe, communicator.size),
  });
  const held = heldFolder && new HeldOut(model, new ImageReader(heldFolder, decoding), options);
  return await runTraining(
    model,
    training,
    resume,
    {
      ...options,
      facts: {
        ...deviceFacts(options.device ?? {}),
        model: options.config,
        initFrom: options.initFrom ?? null,
        pictures: folder.paths.length,
        classes: folder.classes.length,
        listing: folder.hash,
        augmentation,
        mixing,
        // Partners in mixing stand in the same global micro-batch.
        mixedRows: mixing.mixup > 0 || mixing.cutmix > 0 ? batch : null,
      },
      length: (imageSize / patchSize) ** 2 + 1,
      lossesPerRow: 1,
      validate: held && (() => held.measure()),
      onValidation: (step, losses) => options.onValidation?.(step, losses, held?.accuracy ?? {}),
      log: new VisionLog(out, () => held?.accuracy ?? {}),
    },
    dModel,
    nLayer,
  );
}

/** A new model, or one from a checkpoint. */
async function openVisionModel(
  options: VisionRunOptions,
  { classes }: ImageFolder,
  from: string | undefined,
): Promise<MatMamba2Vision> {
  const { recipe, config, headBias, device = {} } = options;
  if (from === undefined) {
    const model = await MatMamba2Vision.create({ ...config, nClasses: classes.length }, { ...device, seed: recipe.seed });
    await model.runtime.weight('head.bias').write({ rows: async (_first, count) => new Float32Array(count).fill(headBias) });
    return model;
  }
  const model = await MatMamba2Vision.fromPretrained(from, device);
  const { nClasses } = model.config;
  if (nClasses === classes.length) return model;
  await model.dispose();
  throw new MatMambaError('CONFIG', `the model in ${from} tells ${nClasses} classes apart, but the data has ${classes.length}`, {
    hint: 'train on as many class folders as the model has classes',
  });
}

/** Micro-batches of a step, over all levels. */
function microBatchesOfStep({ batch, microBatch, strategy }: RecipeOptions, size: number): number {
  return Math.max(1, Math.floor(batch / (microBatch * size))) * ((strategy.levels?.length ?? 4) + (strategy.mixes ?? 0));
}

/** The held-out pictures, and how well each level does on them. */
class HeldOut {
  /** Of the last measurement. */
  accuracy: ByLabel = {};
  readonly #model: MatMamba2Vision;
  readonly #reader: ImageReader;
  readonly #levels: readonly number[];
  readonly #rows: number;
  readonly #chosen: readonly number[];

  constructor(model: MatMamba2Vision, reader: ImageReader, { recipe, validationImages }: VisionRunOptions) {
    this.#model = model;
    this.#reader = reader;
    this.#levels = recipe.strategy.levels ?? [1, 2, 4, 8];
    this.#rows = recipe.microBatch;
    // Files lie class by class: a part of them is drawn from all.
    const order = new Permutation(reader.count, 0);
    const count = Math.min(validationImages ?? reader.count, reader.count);
    this.#chosen = Array.from({ length: count }, (_, i) => (count === reader.count ? i : order.at(i)));
  }

  /** Mean cross-entropy of each level. @throws FORMAT when no picture can be decoded */
  async measure(): Promise<ByLabel> {
    const sums = this.#levels.map(() => ({ loss: 0, right: 0 }));
    let count = 0;
    let ahead = this.#read(0);
    for (let first = 0; first < this.#chosen.length; first += this.#rows) {
      const batch = await ahead;
      // The next pictures are decoded while the model looks at these.
      ahead = this.#read(first + this.#rows);
      ahead.catch(() => {});
      count += batch.labels.length;
      for (const [i, level] of this.#levels.entries()) {
        const { loss, right } = await this.#score(batch, level);
        sums[i]!.loss += loss;
        sums[i]!.right += right;
      }
    }
    if (count === 0) throw new MatMambaError('FORMAT', 'none of the held-out pictures can be decoded');
    const byLevel = (value: (sum: { loss: number; right: number }) => number): ByLabel =>
      Object.fromEntries(this.#levels.map((level, i) => [`level ${level}`, value(sums[i]!) / count]));
    this.accuracy = byLevel(({ right }) => right);
    return byLevel(({ loss }) => loss);
  }

  #read(first: number): Promise<ImageBatch> {
    return this.#reader.batch(this.#chosen.slice(first, first + this.#rows));
  }

  /** Sum of the cross-entropies and number of right answers. */
  async #score({ images, labels }: ImageBatch, level: number): Promise<{ loss: number; right: number }> {
    if (labels.length === 0) return { loss: 0, right: 0 };
    const { imageSize: S, nClasses, dModel } = this.#model.config;
    // Always the same number of rows, so that one program serves; those beyond the pictures are empty.
    const rows = new Float32Array(this.#rows * 3 * S * S);
    rows.set(images);
    const scores = await this.#model.forward(tensor(rows, [this.#rows, 3, S, S]), { mixnmatchDims: dimsOfLevel(level, dModel) });
    const values = scores.toFloat32();
    let loss = 0;
    let right = 0;
    for (const [i, label] of labels.entries()) {
      const row = values.subarray(i * nClasses, (i + 1) * nClasses);
      const max = row.reduce((most, value) => Math.max(most, value), -Infinity);
      const total = row.reduce((sum, value) => sum + Math.exp(value - max), 0);
      loss += Math.log(total) + max - row[label]!;
      if (row.indexOf(max) === label) right++;
    }
    return { loss, right };
  }
}

/** The log of a run with the accuracies beside the held-out losses. */
class VisionLog extends FolderLog {
  readonly #accuracy: () => ByLabel;

  constructor(folder: string, accuracy: () => ByLabel) {
    super(folder);
    this.#accuracy = accuracy;
  }

  override validation(step: number, losses: ByLabel): Promise<void> {
    return super.validation(step, losses, this.#accuracy());
  }
}
