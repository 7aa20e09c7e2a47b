/**
 * The `webgpu` suite: a prompt, single tokens and a generation of the 130M shape on a WebGPU adapter, in every dtype of the weights,
 * beside what the adapter does at best (see `webgpu-rates.ts`).
 *
 * `bytes` are those that a repetition cannot do without touching: the rows and columns of the weights that its width uses,
 * at their stored size, the operands of every op, and the states read and written; `share` is their rate on the device's
 * clock as a share of the rate of a large copy.
 */

import { type WeightStorage, WEIGHT_DTYPES } from '../backends/backend.ts';
import { type WebGpuFeature, WEBGPU_FEATURE_NAMES } from '../backends/webgpu/gpu.ts';
import { openWebGpu } from '../backends/webgpu/webgpu-backend.ts';
import { dimsOfLevel } from '../elastic/granularity.ts';
import { MatMambaError } from '../errors.ts';
import { type MambaConfig, SSM_DEFAULTS, ssmConfig } from '../models/config.ts';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import { PRESETS } from '../models/presets.ts';
import type { Repetition } from './measure.ts';
import { type Row, type RowFigures, decodeRow, forwardWork, timeRow } from './model-rows.ts';
import { type WebGpuRates, measureRates } from './webgpu-rates.ts';

export interface WebGpuAdapter extends WebGpuRates {
  readonly adapter: string;
  /** Optional features in use, and those that the adapter lacks or that were left out. */
  readonly features: readonly WebGpuFeature[];
  readonly without: readonly WebGpuFeature[];
}

export interface WebGpuResult extends RowFigures {
  readonly row: string;
  readonly dtype: WeightStorage;
  /** Tokens of one repetition. */
  readonly items: number;
  /** Of rows that run one program. */
  readonly rates?: RowRates;
}

export interface RowRates {
  readonly bytes: number;
  /** Bytes a second, GB/s, and as a share of the copy's. */
  readonly gigabytes: number;
  readonly share: number;
  /** Operations of the ops a second, TFLOP/s. */
  readonly teraflops: number;
}

/** Rows of a dtype that the adapter cannot hold, and why. */
export interface WebGpuRefusal {
  readonly row: string;
  readonly dtype: WeightStorage;
  readonly refused: string;
}

export interface WebGpuSuiteOptions {
  /** Parts of row names; all rows unless given. */
  readonly rows?: readonly string[] | undefined;
  readonly features?: readonly WebGpuFeature[] | undefined;
  /** A small shape, to try the suite itself. */
  readonly small: boolean;
  readonly repetition: Repetition;
  readonly signal: AbortSignal;
}

interface Shape {
  readonly config: Partial<MambaConfig>;
  readonly promptTokens: number;
  readonly generatedTokens: number;
  readonly copyBytes?: number;
}

const PUBLISHED: Shape = { config: PRESETS['lm-130m'].config, promptTokens: 512, generatedTokens: 64 };
const SMALL: Shape = {
  config: { dModel: 64, nLayer: 2, vocabSize: 256, ssmCfg: { ...SSM_DEFAULTS, dState: 16 } },
  promptTokens: 48,
  generatedTokens: 4,
  copyBytes: 2 ** 20,
};
const LEVELS = [1, 8] as const;
const KINDS = ['prefill', 'decode', 'generate'] as const;
const PROMPT = [3, 14, 15, 92, 65];

/** Measures the adapter, then every row. @throws DEVICE without an adapter, ABORTED */
export async function* webGpuSuite(options: WebGpuSuiteOptions): AsyncGenerator<WebGpuAdapter | WebGpuResult | WebGpuRefusal> {
  const { rows, features, small, repetition, signal } = options;
  const shape = small ? SMALL : PUBLISHED;
  const adapter = await measureAdapter(features, shape.copyBytes);
  yield adapter;
  // From the start of a word, so that f16 is not bf16.
  const wanted = (name: string): boolean => !rows || rows.some((part) => ` ${name}`.includes(` ${part}`));
  for (const dtype of WEIGHT_DTYPES) {
    const names = KINDS.flatMap((kind) => LEVELS.map((level) => rowName(dtype, kind, level)));
    if (!names.some(wanted)) continue;
    let lm: MatMambaLMHeadModel;
    try {
      lm = await MatMambaLMHeadModel.create(shape.config, { device: 'webgpu', webgpuFeatures: features, dtype, seed: 0, signal });
    } catch (error) {
      if (!(error instanceof MatMambaError) || !['MEMORY', 'OPTION'].includes(error.code)) throw error;
      yield { row: `${dtype} rows`, dtype, refused: error.message };
      continue;
    }
    try {
      for (const level of LEVELS) {
        for (const row of modelRows(lm, dtype, shape, level)) {
          if (!wanted(row.name)) continue;
          const figures = await timeRow(row, repetition, signal);
          const rates = row.stateBytes === undefined ? {} : { rates: ratesOf(figures, row.stateBytes, adapter) };
          yield { row: row.name, dtype, items: row.items, ...figures, ...rates };
        }
      }
    } finally {
      await lm.dispose();
    }
  }
}

async function measureAdapter(features?: readonly WebGpuFeature[], copyBytes?: number): Promise<WebGpuAdapter> {
  const backend = await openWebGpu({ features });
  try {
    const rates = await measureRates(backend.device, copyBytes);
    return {
      adapter: backend.capabilities().summary,
      features: backend.device.features,
      without: WEBGPU_FEATURE_NAMES.filter((name) => !backend.device.features.includes(name)),
      ...rates,
    };
  } finally {
    await backend.dispose();
  }
}

function rowName(dtype: WeightStorage, kind: (typeof KINDS)[number], level: number): string {
  return `${dtype} ${kind}, level ${level}`;
}

/** Rows, those of one program with the bytes of states that it reads and writes. */
function modelRows(
  lm: MatMambaLMHeadModel,
  dtype: WeightStorage,
  { promptTokens, generatedTokens }: Shape,
  level: number,
): (Row & { readonly stateBytes?: number })[] {
  const settings = { maxNewTokens: generatedTokens, ignoreEnd: true, temperature: 0.8, topK: 50, seed: 1, mrlLevel: level };
  const generate: Row['work'] = async () => {
    let made = 0;
    for await (const piece of lm.generate(PROMPT, settings)) made += piece.ids.length;
    if (made !== generatedTokens) throw new MatMambaError('INTERNAL', `${made} tokens came, not ${generatedTokens}`);
  };
  const prefill = forwardWork(lm, 1, promptTokens, level);
  return [
    { name: rowName(dtype, 'prefill', level), dtype, items: promptTokens, work: prefill, stateBytes: 0 },
    { ...decodeRow(lm, '', 1, level), name: rowName(dtype, 'decode', level), stateBytes: stateBytes(lm, level) },
    { name: rowName(dtype, 'generate', level), dtype, items: generatedTokens, work: generate },
  ];
}

function ratesOf({ device, ops }: RowFigures, stateBytes: number, { copyGigabytes }: WebGpuRates): RowRates {
  const bytes = ops.reduce((sum, { bytes }) => sum + bytes, stateBytes);
  const flops = ops.reduce((sum, { flops }) => sum + flops, 0);
  const gigabytes = bytes / device.medianMs / 1e6;
  return { bytes, gigabytes, share: gigabytes / copyGigabytes, teraflops: flops / device.medianMs / 1e9 };
}

/** Bytes of a sequence's states that a token at a level reads and writes. */
function stateBytes({ config: { dModel, nLayer, ssmCfg } }: MatMambaLMHeadModel, level: number): number {
  const inner = 2 * dimsOfLevel(level, dModel);
  const { dState, dConv } = ssmConfig(ssmCfg);
  return 2 * 4 * nLayer * (inner * dState + (dConv - 1) * (inner + 2 * dState));
}
