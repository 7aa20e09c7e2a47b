/** `matmamba train vision`: an image classifier, trained at several widths at once. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import type { Communicator } from '../../distributed/index.ts';
import type { VisionPreset } from '../../train/presets.ts';
import { trainVisionModel } from '../../train/vision-run.ts';
import { AUGMENTATIONS } from '../../vision/augment.ts';
import { UsageError } from '../arguments.ts';
import type { Io } from '../io.ts';
import { flag, real, whole } from '../options.ts';
import { type CommonOptions, dividing, gpuRows, outOf, presetOf, recipeOf, shapeOf, trainingDevice } from './options.ts';
import { Reporter } from './reporter.ts';

export const visionArgs = {
  'image-size': { type: 'string', valueHint: 'N', description: 'vision: height and width of the input, pixels' },
  'patch-size': { type: 'string', valueHint: 'N', description: 'vision: height and width of a patch, pixels' },
  augment: {
    type: 'enum',
    options: [...AUGMENTATIONS],
    description: 'vision: cut and mirror at random, only cut, or neither (default full)',
  },
  mixup: { type: 'string', valueHint: 'X', description: 'vision: beta parameter of mixup; 0: none' },
  cutmix: { type: 'string', valueHint: 'X', description: 'vision: beta parameter of cutmix; 0: none' },
  'label-smoothing': { type: 'string', valueHint: 'X', description: 'vision: share of a target that is spread over all classes' },
  'drop-path': { type: 'string', valueHint: 'X', description: 'vision: share of pictures that skip the last layer' },
  'projection-dropout': { type: 'string', valueHint: 'X', description: 'vision: dropout on what projections give' },
  'validation-images': {
    type: 'string',
    valueHint: 'N',
    description: 'vision: held-out pictures that are measured (default: all)',
  },
  'skip-bad': { type: 'boolean', description: 'vision: leave out pictures that cannot be decoded' },
} as const satisfies ArgsDef;

const share = real(0, 0.99).optional();

export const visionOptions = {
  'image-size': whole(1).optional(),
  'patch-size': whole(1).optional(),
  augment: z.enum(AUGMENTATIONS).optional(),
  mixup: real(0).optional(),
  cutmix: real(0).optional(),
  'label-smoothing': share,
  'drop-path': share,
  'projection-dropout': share,
  'validation-images': whole(1).optional(),
  'skip-bad': flag,
};

const schema = z.object(visionOptions);

/** What a model of one's own starts from: small pictures, a recipe for some thousand steps. */
const OWN_SHAPE: VisionPreset = {
  ...presetOf('vision', 'vision-35m'),
  model: { nLayer: 8, dModel: 192, imageSize: 32, patchSize: 4 },
  batch: 128,
  schedule: { peak: 1e-3, warmupSteps: 250, totalSteps: 5000, floor: 0, cosineFrom: 'warmup' },
  dropPathRate: 0,
  projDropRate: 0,
  validateEvery: 250,
};
const MICRO_BATCH = 4;
const MICRO_BATCH_SMALL = 64;
/** Pictures below this many pixels are small. */
const LARGE = 128;

export async function trainVision(
  given: CommonOptions & z.output<typeof schema>,
  data: readonly string[],
  communicator: Communicator,
  io: Io,
): Promise<void> {
  const [folder, ...more] = data;
  if (folder === undefined)
    throw new UsageError('--data is missing', 'name the folder that holds a folder of pictures for each class');
  if (more.length > 0) throw new UsageError('--data was given twice', 'pictures come from one folder of class folders');
  if (given.distill > 0) throw new UsageError('--distill is an option of train lm', 'this is train vision');
  const preset = given.preset === undefined ? OWN_SHAPE : presetOf('vision', given.preset);
  const model = {
    ...preset.model,
    ...shapeOf(given),
    ...(given['image-size'] === undefined ? {} : { imageSize: given['image-size'] }),
    ...(given['patch-size'] === undefined ? {} : { patchSize: given['patch-size'] }),
  };
  const isSmall = (model.imageSize ?? LARGE) < LARGE;
  const device = trainingDevice(given, io);
  const { imageSize = 224, patchSize = 16, dModel = 512, nLayer = 20 } = model;
  const onGpu = gpuRows((imageSize / patchSize) ** 2 + 1, dModel, nLayer);
  const most = device.device === 'cpu' ? (isSmall ? MICRO_BATCH_SMALL : MICRO_BATCH) : onGpu;
  const microBatch = dividing((given.batch ?? preset.batch) / communicator.size, most);
  const recipe = {
    ...recipeOf(given, preset, microBatch),
    dropPathRate: given['drop-path'] ?? preset.dropPathRate,
    projDropRate: given['projection-dropout'] ?? preset.projDropRate,
  };
  const report = new Reporter(recipe, 'images', 1, given.json === true, io);
  const summary = await trainVisionModel({
    out: outOf(given),
    data: folder,
    validationData: given.validation,
    validationImages: given['validation-images'],
    config: model,
    headBias: preset.headBias,
    mixing: {
      mixup: given.mixup ?? preset.mixup,
      cutmix: given.cutmix ?? preset.cutmix,
      labelSmoothing: given['label-smoothing'] ?? preset.labelSmoothing,
    },
    augmentation: given.augment ?? 'full',
    initFrom: given['init-from'],
    skipBad: given['skip-bad'] === true,
    recipe,
    recompute: given.recompute === true,
    validateEvery: given['validate-every'] ?? preset.validateEvery,
    saveEvery: given['save-every'],
    communicator,
    shardOptimizer: given['shard-optimizer'] === true,
    signal: io.signal,
    device,
    onWarning: io.warn,
    onStep: (record) => report.step(record),
    onValidation: (step, losses, accuracy) => report.validation(step, losses, accuracy),
  });
  if (communicator.rank === 0) report.end(summary.last, summary.bestLoss);
}
