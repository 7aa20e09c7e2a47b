/** What `matmamba train lm` and `matmamba train vision` have in common: options, and the recipe they make of a preset. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import type { LanguagePreset, VisionPreset } from '../../train/presets.ts';
import { TRAIN_PRESETS, TRAIN_PRESET_NAMES, isTrainPresetName } from '../../train/presets.ts';
import { type Environment, localRank } from '../../distributed/index.ts';
import { TRAINED_DTYPES } from '../../train/engine.ts';
import type { RecipeOptions, TrainingDevice } from '../../train/run.ts';
import { UsageError } from '../arguments.ts';
import type { Io } from '../io.ts';
import { deviceArgs, deviceOptions, deviceSettings, flag, jsonArgs, real, text, whole, wholeList } from '../options.ts';

export const commonArgs = {
  data: {
    type: 'string',
    valueHint: 'DIR|FILE',
    description: 'lm: tokens, as `matmamba data text` makes them; may be repeated. vision: a folder of pictures for each class',
  },
  validation: {
    type: 'string',
    valueHint: 'DIR|FILE',
    description: 'the same, held out (default for lm: what the data folder holds out)',
  },
  out: {
    type: 'string',
    valueHint: 'DIR',
    description: 'the folder of the run; started again, it goes on from its last checkpoint',
  },
  preset: {
    type: 'enum',
    options: [...TRAIN_PRESET_NAMES],
    description: 'shape and recipe; every option below changes one thing of it',
  },
  'd-model': { type: 'string', valueHint: 'N', description: 'width of the model, a multiple of 32' },
  layers: { type: 'string', valueHint: 'N', description: 'number of layers' },
  'd-state': { type: 'string', valueHint: 'N', description: 'columns of the state (default 128)' },
  'init-from': { type: 'string', valueHint: 'DIR', description: 'start from these weights' },
  levels: { type: 'string', valueHint: 'N[,N...]', description: 'levels to train' },
  strategy: { type: 'enum', options: ['joint', 'sample'], description: 'every level in a step, or one level a micro-batch' },
  mixes: { type: 'string', valueHint: 'N', description: 'Mix’n’Match widths drawn in every step', default: '0' },
  'mix-pool': {
    type: 'string',
    valueHint: 'N',
    description: 'draw them from N mixes, whose programs are kept; 0: anew in every step, each planned for itself',
    default: '0',
  },
  steps: { type: 'string', valueHint: 'N', description: 'steps of the run' },
  batch: { type: 'string', valueHint: 'N', description: 'sequences or pictures of a step for each level' },
  'micro-batch': {
    type: 'string',
    valueHint: 'N',
    description:
      'as many at once; the batch is accumulated from them (default 4, or 64 pictures below 128 pixels; on a GPU what takes about 10 GB)',
  },
  lr: { type: 'string', valueHint: 'X', description: 'highest learning rate' },
  warmup: { type: 'string', valueHint: 'N', description: 'steps of the linear warm-up' },
  'weight-decay': { type: 'string', valueHint: 'X', description: 'of tensors of two or more dimensions (default 0.1)' },
  distill: {
    type: 'string',
    valueHint: 'X',
    description: 'share of the target that narrower widths of a language model take from the full one (0 to 1)',
    default: '0',
  },
  recompute: {
    type: 'boolean',
    description: 'compute activations again instead of keeping them: less memory, a third more work',
  },
  'shard-optimizer': {
    type: 'boolean',
    description: 'with several processes: each keeps the optimizer state of a part of the parameters, not of all',
  },
  'validate-every': { type: 'string', valueHint: 'N', description: 'steps between validations' },
  'save-every': { type: 'string', valueHint: 'N', description: 'steps between checkpoints', default: '100' },
  seed: { type: 'string', valueHint: 'N', description: 'seed of weights, data order and dropout', default: '0' },
  device: deviceArgs.device,
  dtype: {
    type: 'enum',
    options: [...TRAINED_DTYPES],
    description: 'precision of the products; weights are float32 in all (default f32, on a GPU bf16-mixed)',
  },
  threads: deviceArgs.threads,
  blas: deviceArgs.blas,
  ...jsonArgs,
} as const satisfies ArgsDef;

export const commonOptions = {
  data: text,
  validation: text,
  out: text,
  preset: z.enum(TRAIN_PRESET_NAMES as [string, ...string[]]).optional(),
  'd-model': whole(32).optional(),
  layers: whole(1).optional(),
  'd-state': whole(1).optional(),
  'init-from': text,
  levels: wholeList(1, 'levels with commas between them, for example 1,2,4,8').optional(),
  strategy: z.enum(['joint', 'sample']).optional(),
  mixes: whole(0),
  'mix-pool': whole(0),
  steps: whole(1).optional(),
  batch: whole(1).optional(),
  'micro-batch': whole(1).optional(),
  lr: real(0).optional(),
  warmup: whole(0).optional(),
  'weight-decay': real(0).optional(),
  distill: real(0, 1),
  recompute: flag,
  'shard-optimizer': flag,
  'validate-every': whole(1).optional(),
  'save-every': whole(1),
  seed: whole(0),
  device: deviceOptions.device,
  dtype: z.enum(TRAINED_DTYPES).optional(),
  threads: deviceOptions.threads,
  blas: deviceOptions.blas,
  json: flag,
};

const commonSchema = z.object(commonOptions);
export type CommonOptions = z.output<typeof commonSchema>;

/** The presets of a kind of model. */
export function presetNames(kind: 'language' | 'vision'): string[] {
  return TRAIN_PRESET_NAMES.filter((name) => TRAIN_PRESETS[name].kind === kind);
}

export function presetOf(kind: 'language', name: string): LanguagePreset;
export function presetOf(kind: 'vision', name: string): VisionPreset;
/** @throws UsageError for a preset of another kind */
export function presetOf(kind: 'language' | 'vision', name: string): LanguagePreset | VisionPreset {
  const preset = isTrainPresetName(name) ? TRAIN_PRESETS[name] : undefined;
  if (preset?.kind === kind) return preset;
  const what = kind === 'language' ? 'lm' : 'vision';
  throw new UsageError(`train ${what} has no preset '${name}'`, `presets: ${presetNames(kind).join(', ')}`);
}

/** The preset's recipe with the options that were given put over it. */
export function recipeOf(given: CommonOptions, preset: LanguagePreset | VisionPreset, microBatch: number): RecipeOptions {
  const { schedule, betas, clipNorm } = preset;
  const totalSteps = given.steps ?? schedule.totalSteps;
  const batch = given.batch ?? preset.batch;
  return {
    strategy: {
      strategy: given.strategy ?? preset.strategy,
      levels: given.levels ?? preset.levels,
      mixes: given.mixes,
      ...(given['mix-pool'] > 0 ? { mixPool: given['mix-pool'] } : {}),
      distill: given.distill > 0,
    },
    distillation: given.distill,
    batch,
    microBatch: Math.min(batch, given['micro-batch'] ?? microBatch),
    schedule: {
      ...schedule,
      totalSteps,
      peak: given.lr ?? schedule.peak,
      // A shorter run than the preset's warms up for the same share of it.
      warmupSteps:
        given.warmup ?? Math.min(schedule.warmupSteps, Math.ceil((schedule.warmupSteps * totalSteps) / schedule.totalSteps)),
    },
    adamw: {
      beta1: betas[0],
      beta2: betas[1],
      eps: 1e-8,
      weightDecay: given['weight-decay'] ?? preset.weightDecay,
      maxNorm: clipNorm,
    },
    projDropRate: preset.projDropRate,
    dropPathRate: preset.dropPathRate,
    seed: given.seed,
  };
}

/** The parts of a model's config that the options name. */
export function shapeOf(given: CommonOptions): { dModel?: number; nLayer?: number; ssmCfg?: { dState: number } } {
  return {
    ...(given['d-model'] === undefined ? {} : { dModel: given['d-model'] }),
    ...(given.layers === undefined ? {} : { nLayer: given.layers }),
    ...(given['d-state'] === undefined ? {} : { ssmCfg: { dState: given['d-state'] } }),
  };
}

/** @throws UsageError without --out */
export function outOf({ out }: CommonOptions): string {
  if (out === undefined) throw new UsageError('--out is missing', 'name the folder of the run: --out DIR');
  return out;
}

/** Where to train: on a GPU in bf16 unless another dtype is named; with several processes on a machine each has its own. */
export function trainingDevice(given: CommonOptions, io: Io): TrainingDevice {
  const { dtype, ...settings } = given;
  const { device, threads, blas } = deviceSettings(settings, io);
  const chosen = dtype ?? (device === 'cpu' ? 'f32' : 'bf16-mixed');
  const index = device === 'cuda' ? ownGpu(process.env) : undefined;
  return {
    device,
    dtype: chosen,
    blas,
    ...(threads === undefined ? {} : { threads }),
    ...(index === undefined ? {} : { index }),
  };
}

/** The GPU of this process; a launcher may have left it only one to see. */
function ownGpu(env: Environment): number | undefined {
  const seen = env['CUDA_VISIBLE_DEVICES']?.split(',');
  return seen?.length === 1 ? undefined : localRank(env);
}

/** Bytes of activations that a micro-batch may keep on a GPU, and about what a token takes for each layer and unit of D. */
const GPU_ACTIVATION_BYTES = 10e9;
const BYTES_OF_TOKEN = 30;

/** Rows of a micro-batch on a GPU: as many as the memory set aside for activations holds. */
export function gpuRows(tokens: number, dModel: number, nLayer: number): number {
  return Math.max(1, Math.floor(GPU_ACTIVATION_BYTES / (tokens * dModel * nLayer * BYTES_OF_TOKEN)));
}

/** The largest divisor of the rows of a process that is at most `most`. */
export function dividing(rows: number, most: number): number {
  for (let n = Math.min(most, Math.floor(rows)); n > 1; n--) if (rows % n === 0) return n;
  return 1;
}
