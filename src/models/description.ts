/**
 * What a model is, told from its config alone: kind, parameters, and how many parameters and bytes a granularity uses.
 * Nothing here opens a device or reads a weight.
 */

import { type WeightStorage, storageFor } from '../backends/backend.ts';
import type { JsonObject } from '../checkpoint/index.ts';
import { dimsOfLevel, checkDims } from '../elastic/granularity.ts';
import { MatMambaError } from '../errors.ts';
import { INT4_GROUP, int4RowBytes } from '../tensor/int4.ts';
import { sizeOf } from '../tensor/tensor.ts';
import { BLOCK_CONFIG_DEFAULTS, declareBlock } from './block.ts';
import {
  MAMBA_DEFAULTS,
  type MambaConfig,
  type MatMamba2Config,
  type MatMamba2VisionConfig,
  VISION_DEFAULTS,
  configFromJson,
  configToJson,
} from './config.ts';
import { declareLanguageModel } from './language-shape.ts';
import { type MixerShape, mixerParameters, mixerState, zeroBiases } from './mixer.ts';
import type { ParameterSet } from './model.ts';
import type { ParameterDeclaration } from './parameters.ts';
import { stackState } from './stack.ts';
import { declareVisionModel } from './vision-model.ts';

export const MODEL_KINDS = ['language', 'vision', 'block'] as const;
export type ModelKind = (typeof MODEL_KINDS)[number];

/** A kind with a config for it, as presets and config files give them. */
export type ModelSpec =
  | { readonly kind: 'language'; readonly config: Partial<MambaConfig> }
  | { readonly kind: 'vision'; readonly config: Partial<MatMamba2VisionConfig> }
  | { readonly kind: 'block'; readonly config: Partial<MatMamba2Config> };

export interface ModelDescription {
  readonly kind: ModelKind;
  /** Every field, defaults filled in. */
  readonly config: MambaConfig | MatMamba2VisionConfig | MatMamba2Config;
  /** The original's `config.json`. */
  readonly json: JsonObject;
  readonly dModel: number;
  /** Layers that have a width; 1 for a block. */
  readonly nLayer: number;
  readonly parameters: ParameterSet;
  /** Carried state of one sequence; 0 for vision. */
  readonly stateBytes: number;
  readonly mixer: MixerShape;
}

export interface SizeReport {
  /** Dims of every layer. */
  readonly dims: readonly number[];
  readonly parameters: number;
  /** Without the embedding and an untied head (language models; else all). */
  readonly bodyParameters: number;
  readonly bytes: Readonly<Record<WeightStorage, number>>;
}

/** The kind of model that a `config.json` describes. @throws CONFIG */
export function kindOfConfig(json: JsonObject, where = 'config.json'): ModelKind {
  const has = (...keys: string[]): boolean => keys.some((key) => key in json);
  if (has('patch_size', 'n_classes', 'image_size')) return 'vision';
  if (has('vocab_size', 'n_layer', 'tie_embeddings')) return 'language';
  if (has('d_model')) return 'block';
  throw new MatMambaError('CONFIG', `${where} describes no MatMamba model`, {
    hint: 'a language model has vocab_size, a vision model patch_size, a block d_model and d_state',
  });
}

/** A config file's content as kind and config. @throws CONFIG */
export function specFromJson(json: JsonObject, where: string, warn: (message: string) => void): ModelSpec {
  const kind = kindOfConfig(json, where);
  switch (kind) {
    case 'language':
      return { kind, config: configFromJson(json, MAMBA_DEFAULTS, where, warn) };
    case 'vision':
      return { kind, config: configFromJson(json, VISION_DEFAULTS, where, warn) };
    case 'block':
      return { kind, config: configFromJson(json, BLOCK_CONFIG_DEFAULTS, where, warn) };
  }
}

/** @throws OPTION, CONFIG */
export function describeModel(spec: ModelSpec): ModelDescription {
  if (spec.kind === 'block') {
    const { full, shape, parameters } = declareBlock(spec.config);
    return { ...common('block', full, 1, shape, parameters), stateBytes: 4 * mixerState('block', shape, 0).end };
  }
  const { config, stack, parameters } =
    spec.kind === 'language' ? declareLanguageModel(spec.config) : declareVisionModel(spec.config);
  return {
    ...common(spec.kind, config, stack.nLayer, stack.mixer, parameters),
    stateBytes: spec.kind === 'language' ? stackState(stack).slotBytes : 0,
  };
}

function common(
  kind: ModelKind,
  config: ModelDescription['config'],
  nLayer: number,
  mixer: MixerShape,
  parameters: ParameterSet,
): Omit<ModelDescription, 'stateBytes'> {
  return { kind, config, json: configToJson(config), dModel: mixer.D, nLayer, mixer, parameters };
}

/** Levels of TRAINED_LEVELS and others may not divide a small model; this says which do. */
export function hasLevel(level: number, dModel: number): boolean {
  try {
    dimsOfLevel(level, dModel);
    return true;
  } catch {
    return false;
  }
}

/**
 * Parameters and bytes that run at a granularity: one width, or one per layer. A layer of fewer dims is what a mixer
 * with fewer heads would have. int8 counts a float32 scale a row, int4 one for every 32 columns.
 * @throws WIDTH
 */
export function sizeAt(
  { kind, parameters, mixer, dModel, nLayer }: ModelDescription,
  dims: number | readonly number[],
): SizeReport {
  const widths = typeof dims === 'number' ? Array.from({ length: nLayer }, () => dims) : dims;
  if (widths.length !== nLayer) {
    throw new MatMambaError('WIDTH', `${widths.length} widths for ${nLayer} layers`, {
      hint: 'give one number, or one per layer',
    });
  }
  for (const [i, width] of widths.entries()) checkDims(width, dModel, `layer ${i}`);
  const declared = [...parameters.declared.values()];
  const layer = (width: number): ParameterDeclaration[] =>
    mixerParameters('', { ...mixer, E: 2 * width, H: (2 * width) / mixer.P }, 1, zeroBiases);
  const full = layer(dModel);
  const sum = (measure: (parameter: ParameterDeclaration) => number): number => {
    const total = (list: readonly ParameterDeclaration[]): number => list.reduce((n, parameter) => n + measure(parameter), 0);
    const whole = total(full);
    return widths.reduce((n, width) => n - whole + total(layer(width)), total(declared));
  };
  const count = sum(({ shape }) => sizeOf(shape));
  const outside =
    kind === 'language' ? declared.filter(({ name }) => name.endsWith('embedding.weight') || name === 'lm_head.weight') : [];
  return {
    dims: widths,
    parameters: count,
    bodyParameters: count - outside.reduce((n, { shape }) => n + sizeOf(shape), 0),
    bytes: {
      f32: sum((p) => bytesIn(p, 'f32')),
      bf16: sum((p) => bytesIn(p, 'bf16')),
      f16: sum((p) => bytesIn(p, 'f16')),
      int8: sum((p) => bytesIn(p, 'int8')),
      int4: sum((p) => bytesIn(p, 'int4')),
    },
  };
}

function bytesIn(parameter: ParameterDeclaration, dtype: WeightStorage): number {
  const size = sizeOf(parameter.shape);
  const stored = storageFor(parameter, dtype);
  const [rows, columns] = [parameter.shape[0]!, size / parameter.shape[0]!];
  if (stored === 'int4') return rows * (int4RowBytes(columns) + 4 * Math.ceil(columns / INT4_GROUP));
  return stored === 'int8' ? size + 4 * rows : size * (stored === 'f32' ? 4 : 2);
}
