/**
 * The `cpu` suite: prompt and decode speed of a language model over dtypes, thread counts, BLAS and levels, and the
 * speed of its two typical matrix products. Results come one by one, as they are measured.
 */

import type { OpProfile, WeightStorage } from '../backends/backend.ts';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import { tensor } from '../tensor/tensor.ts';
import { linearSpeed } from './linear-speed.ts';
import { type Repetition, measure, rateOf } from './measure.ts';

export interface CpuSuiteOptions {
  /** A folder with a language model. */
  readonly folder: string;
  readonly dtypes: readonly WeightStorage[];
  readonly levels: readonly number[];
  readonly threads: readonly number[];
  readonly blas: readonly string[];
  readonly promptTokens: number;
  readonly decodeTokens: number;
  readonly repetition: Repetition;
  readonly signal: AbortSignal;
  /** Called after every measurement. */
  readonly onProgress?: (done: number, total: number) => void;
}

interface Setting {
  readonly dtype: WeightStorage;
  readonly threads: number;
  /** As it was asked for: `auto`, `off` or a path. */
  readonly blas: string;
}

/** Tokens a second at one level. */
export interface SpeedResult extends Setting {
  readonly kind: 'model';
  readonly level: number;
  readonly prefill: Rate;
  readonly decode: Rate;
}

/** One product on its own: `matrix` has as many rows as the prompt, `vector` one. */
export interface ProductResult extends Setting {
  readonly kind: 'matrix' | 'vector';
  /** rows x k times k x n */
  readonly shape: readonly [rows: number, k: number, n: number];
  readonly gflops: Rate;
  readonly gigabytes: Rate;
}

export interface Rate {
  readonly perSecond: number;
  /** Half of the range between the quartiles, relative to the median. */
  readonly spread: number;
}

export type CpuResult = SpeedResult | ProductResult;

/** @throws what loading a model throws; ABORTED */
export async function* cpuSuite(options: CpuSuiteOptions): AsyncGenerator<CpuResult> {
  const { dtypes, threads, blas, levels, onProgress } = options;
  const settings = dtypes.flatMap((dtype) =>
    threads.flatMap((count) => blas.map((library): Setting => ({ dtype, threads: count, blas: library }))),
  );
  const total = settings.length * (levels.length + 2);
  let done = 0;
  for (const setting of settings) {
    for await (const result of measureSetting(setting, options)) {
      onProgress?.(++done, total);
      yield result;
    }
  }
}

async function* measureSetting(
  setting: Setting,
  { folder, levels, promptTokens, decodeTokens, repetition, signal }: CpuSuiteOptions,
): AsyncGenerator<CpuResult> {
  const { dtype, threads, blas } = setting;
  await using lm = await MatMambaLMHeadModel.fromPretrained(folder, { dtype, threads, blas, signal });
  for (const level of levels)
    yield { kind: 'model', ...setting, level, ...(await modelSpeed(lm, level, promptTokens, decodeTokens, repetition, signal)) };
  const { dModel: D, ssmCfg } = lm.config;
  const inProjection = 4 * D + 2 * (ssmCfg.dState ?? 128) + 64;
  for (const [kind, shape] of [
    ['matrix', { rows: promptTokens, k: D, n: inProjection }],
    ['vector', { rows: 1, k: D, n: lm.vocabSize }],
  ] as const) {
    const { rows, k, n, flops, bytes, timing } = await linearSpeed(shape, dtype, { threads, blas }, repetition, signal);
    yield { kind, ...setting, shape: [rows, k, n], gflops: rateOf(flops / 1e9, timing), gigabytes: rateOf(bytes / 1e9, timing) };
  }
}

async function modelSpeed(
  lm: MatMambaLMHeadModel,
  level: number,
  promptTokens: number,
  decodeTokens: number,
  repetition: Repetition,
  signal: AbortSignal,
): Promise<{ prefill: Rate; decode: Rate }> {
  const { prefill, decode } = phases(lm, level, promptTokens, signal);
  try {
    const prompt = await measure(() => prefill.run(), repetition, signal);
    const tokens = await measure(
      async () => {
        for (let i = 0; i < decodeTokens; i++) await decode.run();
      },
      repetition,
      signal,
    );
    return { prefill: rateOf(promptTokens, prompt), decode: rateOf(decodeTokens, tokens) };
  } finally {
    prefill.dispose();
  }
}

interface Phase {
  run(onProfile?: (ops: readonly OpProfile[]) => void): Promise<void>;
  dispose(): void;
}

/** What is timed: a prompt with the logits of its last token, and one token after it. */
function phases(
  lm: MatMambaLMHeadModel,
  level: number,
  promptTokens: number,
  signal: AbortSignal,
): { prefill: Phase; decode: Phase } {
  const state = lm.createState();
  const prompt = tensor(
    Int32Array.from({ length: promptTokens }, (_, i) => (7919 * i + 13) % lm.vocabSize),
    [1, promptTokens],
  );
  const token = tensor(Int32Array.of(1), [1, 1]);
  const dispose = (): void => state.dispose();
  const phase = (ids: typeof prompt): Phase => ({
    dispose,
    async run(onProfile) {
      await lm.forward(ids, { state, mrlLevel: level, numLastTokens: 1, signal, ...(onProfile ? { onProfile } : {}) });
    },
  });
  return { prefill: phase(prompt), decode: phase(token) };
}

/** Runs each phase a few times with the profiler on; `onProfile` gets every counted run. */
export async function profilePhases(
  options: Pick<CpuSuiteOptions, 'folder' | 'promptTokens' | 'signal'> &
    Setting & { readonly level: number; readonly runs: number },
  onProfile: (phase: 'prefill' | 'decode', ops: readonly OpProfile[]) => void,
): Promise<void> {
  const { folder, dtype, threads, blas, level, promptTokens, runs, signal } = options;
  await using lm = await MatMambaLMHeadModel.fromPretrained(folder, { dtype, threads, blas, signal });
  const both = phases(lm, level, promptTokens, signal);
  try {
    for (const [name, phase, count] of [
      ['prefill', both.prefill, runs],
      ['decode', both.decode, 8 * runs],
    ] as const) {
      await phase.run();
      for (let i = 0; i < count; i++) await phase.run((ops) => onProfile(name, ops));
    }
  } finally {
    both.prefill.dispose();
  }
}
