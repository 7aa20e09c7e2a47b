/**
 * Training recipes as data. Those of the published models are the hyper-parameters of the original's training scripts;
 * `books-10m` is the recipe of the small language model of this project.
 */

import type { MambaConfig, MatMamba2VisionConfig } from '../models/config.ts';
import { PRESETS } from '../models/presets.ts';
import type { Schedule } from './schedule.ts';

interface Recipe {
  readonly strategy: 'joint' | 'sample';
  readonly levels: readonly number[];
  /**
   * Sequences or images for each level of a step (`joint`), or of each micro-batch of one level (`sample`). More than
   * the device holds at once is accumulated.
   */
  readonly batch: number;
  readonly schedule: Required<Schedule>;
  readonly betas: readonly [number, number];
  /** Of tensors of two or more dimensions. */
  readonly weightDecay: number;
  /** Global gradient norm above which gradients are scaled down. */
  readonly clipNorm: number;
  readonly dropPathRate: number;
  /** Dropout on the raw in_proj output and on the out_proj output. */
  readonly projDropRate: number;
  readonly validateEvery: number;
}

export interface LanguagePreset extends Recipe {
  readonly kind: 'language';
  readonly model: Partial<MambaConfig>;
  /** T, tokens of a training sequence. */
  readonly lengthTokens: number;
}

export interface VisionPreset extends Recipe {
  readonly kind: 'vision';
  readonly model: Partial<MatMamba2VisionConfig>;
  /** Alphas of the beta distributions that images are mixed by; 0: not. */
  readonly mixup: number;
  readonly cutmix: number;
  readonly labelSmoothing: number;
  /** Initial bias of the head. */
  readonly headBias: number;
}

export type TrainPreset = LanguagePreset | VisionPreset;

const LEVELS = [1, 2, 4, 8] as const;

/** 524,288 tokens a step for every level, in sequences of 1,024. */
function language(model: 'lm-130m' | 'lm-370m' | 'lm-790m' | 'lm-1.4b', totalSteps: number): LanguagePreset {
  return {
    kind: 'language',
    model: PRESETS[model].config,
    strategy: 'joint',
    levels: LEVELS,
    batch: 524_288 / 1024,
    lengthTokens: 1024,
    schedule: { peak: 6e-4, warmupSteps: 700, totalSteps, floor: 0, cosineFrom: 'warmup' },
    betas: [0.9, 0.95],
    weightDecay: 0.1,
    clipNorm: 1,
    dropPathRate: 0,
    projDropRate: 0,
    validateEvery: 250,
  };
}

/** Iterations of one level each, an optimizer step every four; the original counts its schedule in iterations. */
function vision(model: 'vision-35m' | 'vision-135m', batch: number, iterations: number): VisionPreset {
  const totalSteps = iterations / LEVELS.length;
  return {
    kind: 'vision',
    model: PRESETS[model].config,
    strategy: 'sample',
    levels: LEVELS,
    batch,
    schedule: { peak: 5e-3, warmupSteps: 10_000 / LEVELS.length, totalSteps, floor: 2e-4, cosineFrom: 'warmup' },
    betas: [0.9, 0.999],
    weightDecay: 0.1,
    clipNorm: 1,
    dropPathRate: 0.1,
    projDropRate: 0.1,
    // About an epoch of ImageNet-1k's 1,281,167 images, as in the original.
    validateEvery: Math.round(1_281_167 / batch / LEVELS.length),
    mixup: 0.8,
    cutmix: 1,
    labelSmoothing: 0.1,
    headBias: -6.9,
  };
}

export const TRAIN_PRESETS = {
  'lm-130m': language('lm-130m', 30_000),
  'lm-370m': language('lm-370m', 60_000),
  'lm-790m': language('lm-790m', 60_000),
  'lm-1.4b': language('lm-1.4b', 120_000),
  'vision-35m': vision('vision-35m', 8192, 124_800),
  'vision-135m': vision('vision-135m', 4096, 249_600),
  'books-10m': {
    kind: 'language',
    model: { nLayer: 8, dModel: 384, vocabSize: 4096 },
    strategy: 'joint',
    levels: LEVELS,
    batch: 128,
    lengthTokens: 512,
    schedule: { peak: 3e-3, warmupSteps: 150, totalSteps: 1388, floor: 0, cosineFrom: 'start' },
    betas: [0.9, 0.95],
    weightDecay: 0.1,
    clipNorm: 1,
    dropPathRate: 0,
    projDropRate: 0,
    validateEvery: 100,
  },
} as const satisfies Readonly<Record<string, TrainPreset>>;

export type TrainPresetName = keyof typeof TRAIN_PRESETS;
export const TRAIN_PRESET_NAMES = Object.keys(TRAIN_PRESETS) as TrainPresetName[];

export function isTrainPresetName(name: string): name is TrainPresetName {
  return Object.hasOwn(TRAIN_PRESETS, name);
}
