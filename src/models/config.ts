/**
 * The configs of the block, the language model and the vision model: the original's fields in camelCase, their
 * defaults, and the reading and writing of its `config.json`.
 *
 * `headdim` and `chunkSize` are accepted and do not bind: the head dimension is always D / 32, the chunk length ours.
 * Keys in a caller's config are checked strictly; in a file from outside an unknown key is a warning, and refused only
 * when it looks like a misspelling.
 */

import { type JsonObject, isJsonObject } from '../checkpoint/python-json.ts';
import { MatMambaError, nearestWord, refuseUnknownKeys } from '../errors.ts';

/** The mixer's options (`ssm_cfg` of the models, the arguments of the block). */
export interface SsmConfig {
  /** N, columns of the state. */
  readonly dState: number;
  /** Taps of the causal convolution, 2 to 4. */
  readonly dConv: number;
  /** Bound of the convolution weight's uniform initialisation; null: 1/sqrt(dConv). */
  readonly convInit: number | null;
  readonly expand: number;
  readonly headdim: number | null;
  readonly dSsm: number | null;
  readonly ngroups: number;
  readonly AInitRange: readonly [number, number];
  readonly DHasHdim: boolean;
  readonly rmsnorm: boolean;
  readonly normBeforeGate: boolean;
  readonly dtMin: number;
  readonly dtMax: number;
  readonly dtInitFloor: number;
  readonly dtLimit: readonly [number, number];
  readonly bias: boolean;
  readonly convBias: boolean;
  readonly chunkSize: number;
  /** Dropout on the raw in_proj output and on the out_proj output while training. */
  readonly projDropRate: number;
}

/** The standalone block's config. */
export interface MatMamba2Config extends SsmConfig {
  readonly dModel: number;
}

export interface MambaConfig {
  readonly dModel: number;
  /** Hidden width of a gated MLP after every mixer, rounded up to a multiple of 128; 0: none. */
  readonly dIntermediate: number;
  readonly nLayer: number;
  readonly vocabSize: number;
  readonly ssmCfg: Partial<SsmConfig>;
  readonly attnLayerIdx: readonly number[];
  readonly attnCfg: JsonObject;
  readonly rmsNorm: boolean;
  readonly residualInFp32: boolean;
  readonly fusedAddNorm: boolean;
  readonly padVocabSizeMultiple: number;
  readonly tieEmbeddings: boolean;
}

export interface MatMamba2VisionConfig {
  readonly dModel: number;
  readonly nLayer: number;
  readonly dIntermediate: number;
  readonly nClasses: number;
  readonly patchSize: number;
  readonly imageSize: number;
  readonly ssmCfg: Partial<SsmConfig>;
  readonly attnLayerIdx: readonly number[];
  readonly attnCfg: JsonObject;
  readonly normEpsilon: number;
  readonly rmsNorm: boolean;
  readonly initializerCfg: JsonObject;
  readonly fusedAddNorm: boolean;
  readonly residualInFp32: boolean;
  readonly dropRate: number;
  readonly dropPathRate: number;
  readonly projDropRate: number;
  /** The token the head reads: the class token, or the mean of the patches. */
  readonly pool: 'cls' | 'avg';
}

export const SSM_DEFAULTS: SsmConfig = {
  dState: 128,
  dConv: 4,
  convInit: null,
  expand: 2,
  headdim: null,
  dSsm: null,
  ngroups: 1,
  AInitRange: [1, 16],
  DHasHdim: false,
  rmsnorm: true,
  normBeforeGate: false,
  dtMin: 0.001,
  dtMax: 0.1,
  dtInitFloor: 1e-4,
  dtLimit: [0, Infinity],
  bias: false,
  convBias: true,
  chunkSize: 256,
  projDropRate: 0,
};

export const MAMBA_DEFAULTS: MambaConfig = {
  dModel: 2560,
  dIntermediate: 0,
  nLayer: 64,
  vocabSize: 50277,
  ssmCfg: {},
  attnLayerIdx: [],
  attnCfg: {},
  rmsNorm: true,
  residualInFp32: true,
  fusedAddNorm: true,
  padVocabSizeMultiple: 8,
  tieEmbeddings: true,
};

export const VISION_DEFAULTS: MatMamba2VisionConfig = {
  dModel: 1024,
  nLayer: 20,
  dIntermediate: 0,
  nClasses: 1000,
  patchSize: 16,
  imageSize: 224,
  ssmCfg: {},
  attnLayerIdx: [],
  attnCfg: {},
  normEpsilon: 1e-5,
  rmsNorm: false,
  initializerCfg: {},
  fusedAddNorm: false,
  residualInFp32: false,
  dropRate: 0,
  dropPathRate: 0,
  projDropRate: 0,
  pool: 'cls',
};

/** Keys that the original's files may hold and that say nothing about the model. */
const IGNORED_KEYS = ['device', 'dtype', 'layer', 'layer_idx', 'use_mem_eff_path', 'process_group', 'sequence_parallel'];

/** `AInitRange` -> `A_init_range`, `dState` -> `d_state`. */
function snakeCase(key: string): string {
  return key.replace(/(?<=.)[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

const snakeKeys = new Map<string, string>();
for (const defaults of [SSM_DEFAULTS, MAMBA_DEFAULTS, VISION_DEFAULTS]) {
  for (const key of Object.keys(defaults)) snakeKeys.set(key, snakeCase(key));
}

/** Fills in defaults and checks every value of a caller's config. @throws OPTION, CONFIG */
export function ssmConfig(given: Partial<SsmConfig>, where = 'ssmCfg'): SsmConfig {
  refuseUnknownKeys(given, Object.keys(SSM_DEFAULTS), where);
  const config = merge(SSM_DEFAULTS, given, where);
  const refuse = (field: keyof SsmConfig, why: string): never => {
    throw new MatMambaError('CONFIG', `${where}.${field} = ${JSON.stringify(config[field])} is not supported`, { hint: why });
  };
  if (config.expand !== 2) refuse('expand', 'MatMamba blocks have 2 * D inner channels');
  if (config.ngroups !== 1) refuse('ngroups', 'nested widths share one group of B and C');
  if (![2, 3, 4].includes(config.dConv)) refuse('dConv', 'the convolution has 2, 3 or 4 taps');
  if (!Number.isInteger(config.dState) || config.dState < 1) refuse('dState', 'a state has a whole number of columns');
  if (config.dtLimit.length !== 2 || !(config.dtLimit[0] <= config.dtLimit[1])) refuse('dtLimit', 'give [smallest, largest]');
  if (config.AInitRange.length !== 2 || !(config.AInitRange[0] > 0) || !(config.AInitRange[0] <= config.AInitRange[1])) {
    refuse('AInitRange', 'give [smallest, largest] above 0');
  }
  if (!(config.dtMin > 0) || !(config.dtMin <= config.dtMax)) refuse('dtMin', 'dtMin and dtMax are above 0 and in order');
  if (!(config.dtInitFloor > 0)) refuse('dtInitFloor', 'a step size is above 0');
  if (config.convInit !== null && !(config.convInit >= 0)) refuse('convInit', 'give a bound of at least 0, or null');
  if (!(config.projDropRate >= 0) || !(config.projDropRate < 1)) refuse('projDropRate', 'a rate lies in [0, 1)');
  return config;
}

/** @throws OPTION, CONFIG */
export function blockConfig(given: Partial<MatMamba2Config>): MatMamba2Config {
  refuseUnknownKeys(given, ['dModel', ...Object.keys(SSM_DEFAULTS)], 'MatMamba2 config');
  const { dModel, ...rest } = given;
  if (dModel === undefined)
    throw new MatMambaError('OPTION', 'MatMamba2 needs dModel', { hint: 'a multiple of 32, for example 512' });
  checkModelWidth(dModel);
  const ssm = ssmConfig(rest, 'MatMamba2 config');
  checkInnerWidth(ssm, dModel);
  return { dModel, ...ssm };
}

/** @throws OPTION, CONFIG */
export function mambaConfig(given: Partial<MambaConfig>): MambaConfig {
  refuseUnknownKeys(given, Object.keys(MAMBA_DEFAULTS), 'MambaConfig');
  const config = merge(MAMBA_DEFAULTS, given, 'MambaConfig');
  checkStack(config);
  checkAtLeastOne(config, ['vocabSize', 'padVocabSizeMultiple']);
  return config;
}

/** @throws OPTION, CONFIG */
export function visionConfig(given: Partial<MatMamba2VisionConfig>): MatMamba2VisionConfig {
  refuseUnknownKeys(given, Object.keys(VISION_DEFAULTS), 'MatMamba2VisionConfig');
  const config = merge(VISION_DEFAULTS, given, 'MatMamba2VisionConfig');
  checkStack(config);
  checkAtLeastOne(config, ['nClasses', 'patchSize', 'imageSize']);
  if (!(config.normEpsilon >= 0))
    throw new MatMambaError('CONFIG', `normEpsilon is ${config.normEpsilon}`, { hint: 'a number of at least 0' });
  if (config.imageSize % config.patchSize !== 0) {
    throw new MatMambaError('CONFIG', `imageSize ${config.imageSize} is no multiple of patchSize ${config.patchSize}`);
  }
  if (config.pool !== 'cls' && config.pool !== 'avg') {
    throw new MatMambaError('CONFIG', `pool = ${JSON.stringify(config.pool)} is not supported`, {
      hint: "pool is 'cls' or 'avg'",
    });
  }
  return config;
}

/** Vocabulary rounded up as the embedding has it. */
export function paddedVocabSize({
  vocabSize,
  padVocabSizeMultiple,
}: Pick<MambaConfig, 'vocabSize' | 'padVocabSizeMultiple'>): number {
  return Math.ceil(vocabSize / padVocabSizeMultiple) * padVocabSizeMultiple;
}

function checkStack(config: MambaConfig | MatMamba2VisionConfig): void {
  checkModelWidth(config.dModel);
  checkAtLeastOne(config, ['nLayer']);
  if (!Number.isInteger(config.dIntermediate) || config.dIntermediate < 0) {
    throw new MatMambaError('CONFIG', `dIntermediate is ${config.dIntermediate}`, {
      hint: 'a whole number of at least 0; 0: no MLP',
    });
  }
  if (config.attnLayerIdx.length > 0) {
    throw new MatMambaError('CONFIG', 'attention layers (attnLayerIdx) are not supported', {
      hint: 'MatMamba nests Mamba-2 layers only',
    });
  }
  checkInnerWidth(ssmConfig(config.ssmCfg), config.dModel);
}

function checkModelWidth(dModel: number): void {
  if (Number.isInteger(dModel) && dModel > 0 && dModel % 32 === 0) return;
  throw new MatMambaError('CONFIG', `dModel ${dModel} is no multiple of 32`, {
    hint: 'a layer has 64 heads of dModel / 32 channels',
  });
}

function checkInnerWidth({ dSsm }: SsmConfig, dModel: number): void {
  if (dSsm === null || dSsm === 2 * dModel) return;
  throw new MatMambaError('CONFIG', `dSsm ${dSsm} is not supported`, {
    hint: `leave it out, or give 2 * dModel = ${2 * dModel}`,
  });
}

function checkAtLeastOne<C extends object>(config: C, fields: readonly (keyof C & string)[]): void {
  for (const field of fields) {
    const value = config[field] as number;
    if (!Number.isInteger(value) || value < 1)
      throw new MatMambaError('CONFIG', `${field} is ${value}`, { hint: 'a whole number of at least 1' });
  }
}

/** Defaults overlaid with what is given; every value must be of its default's kind. */
function merge<C extends object>(defaults: C, given: Partial<C>, where: string): C {
  const config: Record<string, unknown> = Object.fromEntries(Object.entries(defaults));
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined) continue;
    const model = (defaults as Record<string, unknown>)[key];
    if (!sameKind(model, value)) {
      throw new MatMambaError('CONFIG', `${where}.${key} is ${JSON.stringify(value)}, expected ${kindOf(model)}`);
    }
    config[key] = value;
  }
  return config as C;
}

function kindOf(model: unknown): string {
  if (Array.isArray(model)) return 'a list of numbers';
  if (model === null) return 'a number or null';
  return typeof model === 'object' ? 'an object' : `a ${typeof model}`;
}

function sameKind(model: unknown, value: unknown): boolean {
  if (model === null) return value === null || typeof value === 'number';
  if (Array.isArray(model)) return Array.isArray(value) && value.every((item) => typeof item === 'number');
  if (typeof model === 'object') return typeof value === 'object' && value !== null && !Array.isArray(value);
  return typeof value === typeof model;
}

/** Reads an original `config.json` (or its `ssm_cfg`) into camelCase. */
export function configFromJson<C extends object>(
  json: JsonObject,
  defaults: C,
  where: string,
  warn: (message: string) => void,
): Partial<C> {
  const config: Record<string, unknown> = {};
  const bySnake = new Map(Object.keys(defaults).map((key) => [snakeKeys.get(key)!, key]));
  for (const [key, value] of Object.entries(json)) {
    const name = bySnake.get(key);
    if (name === undefined) {
      if (IGNORED_KEYS.includes(key)) continue;
      const near = nearestWord(key, [...bySnake.keys()]);
      if (near !== undefined) {
        throw new MatMambaError('CONFIG', `${where} has no field '${key}'`, { hint: `did you mean '${near}'?` });
      }
      warn(`${where}: the field '${key}' is not known and was ignored`);
    } else if (name === 'ssmCfg') {
      if (!isJsonObject(value)) throw new MatMambaError('CONFIG', `${where}.ssm_cfg is no object`);
      config[name] = configFromJson(value, SSM_DEFAULTS, `${where}.ssm_cfg`, warn);
    } else if (value !== null || (defaults as Record<string, unknown>)[name] === null) config[name] = value;
  }
  return config as Partial<C>;
}

/** The original's `config.json` fields of a config. */
export function configToJson(config: object): JsonObject {
  const json: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(config)) {
    json[snakeKeys.get(key) ?? key] = key === 'ssmCfg' ? configToJson(value as object) : value;
  }
  return json as JsonObject;
}
