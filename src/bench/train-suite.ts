/**
 * The `train-cpu` suite: the speed of a joint training step (forward and backward at every level, clipping, AdamW) over
 * models, thread counts and BLAS, set against the speed of one large matrix product under the same settings.
 *
 * Model FLOPs count what the mathematics needs, not what runs: for every token at a level 6 for each element of the
 * matrices that the level uses (forward 2, backward 4; in_proj, out_proj and the head), and for the scan 15 for each
 * element of the states (forward 5: decay, outer product, sum, and 2 to read; backward twice that), as if it ran token
 * by token. Norms, convolutions, the optimizer and recomputed activations count nothing.
 */

import type { OpProfile } from '../backends/backend.ts';
import { dimsOfLevel } from '../elastic/granularity.ts';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import { Random } from '../tensor/random.ts';
import { TrainingEngine } from '../train/engine.ts';
import { TRAIN_PRESETS } from '../train/presets.ts';
import type { Rate } from './cpu-suite.ts';
import { linearSpeed } from './linear-speed.ts';
import { type Repetition, type Timing, measure, rateOf } from './measure.ts';

/** The models that are measured, with random weights, and the B sequences of each level. */
export const TRAIN_BENCH_MODELS = {
  'books-10m': { config: TRAIN_PRESETS['books-10m'].model, batch: 4 },
  'lm-130m': { config: TRAIN_PRESETS['lm-130m'].model, batch: 1 },
} as const;
export type TrainBenchModel = keyof typeof TRAIN_BENCH_MODELS;
export const TRAIN_BENCH_MODEL_NAMES = Object.keys(TRAIN_BENCH_MODELS) as TrainBenchModel[];

/** Rows, k and n of the product that the step is compared with. */
const YARDSTICK = { rows: 2048, k: 1024, n: 1024 } as const;
const MATRIX_OPS = /^linear/;
const MEMORY_SAMPLE_MS = 20;

export interface TrainSuiteOptions {
  readonly models: readonly TrainBenchModel[];
  readonly levels: readonly number[];
  readonly threads: readonly number[];
  /** `auto`, `off` or a path. */
  readonly blas: readonly string[];
  readonly recompute: boolean;
  /** T. */
  readonly lengthTokens: number;
  readonly repetition: Repetition;
  readonly signal: AbortSignal;
  /** Called after every measurement. */
  readonly onProgress?: (done: number, total: number) => void;
}

export interface TrainResult {
  readonly kind: 'train';
  readonly model: TrainBenchModel;
  readonly threads: number;
  readonly blas: string;
  readonly levels: readonly number[];
  readonly batch: number;
  readonly lengthTokens: number;
  readonly recompute: boolean;
  readonly step: Timing;
  /** B * T for each level. */
  readonly tokens: Rate;
  /** In a step. */
  readonly modelFlops: number;
  readonly modelGflops: Rate;
  /** One large matrix product, same threads and BLAS. */
  readonly gemmGflops: Rate;
  /** modelGflops / gemmGflops. */
  readonly shareOfGemm: number;
  /** Share of a profiled step's time in matrix products: linear maps, the head with its cross-entropy, their gradients. */
  readonly shareInProducts: number;
  /** GFLOP/s of those. */
  readonly productGflops: number;
  /** productGflops / gemmGflops. */
  readonly productShareOfGemm: number;
  /** Largest resident memory of the process seen during the steps. */
  readonly peakMemoryBytes: number;
  /** The profiled step by op. */
  readonly ops: readonly OpProfile[];
}

/** @throws MEMORY, DEVICE, ABORTED */
export async function* trainSuite(options: TrainSuiteOptions): AsyncGenerator<TrainResult> {
  const { models, threads, blas, onProgress, signal } = options;
  const total = threads.length * blas.length * models.length;
  let done = 0;
  for (const count of threads) {
    for (const library of blas) {
      const device = { threads: count, blas: library };
      for (const model of models) {
        // Before and after, and the faster counts: other work on the machine must not make a step look good.
        const before = await gemmRate(device, signal);
        const step = await measureStep(model, device, options);
        const after = await gemmRate(device, signal);
        onProgress?.(++done, total);
        yield compared(step, before.perSecond > after.perSecond ? before : after);
      }
    }
  }
}

interface Device {
  readonly threads: number;
  readonly blas: string;
}

/** GFLOP/s of the yardstick. */
async function gemmRate(device: Device, signal: AbortSignal): Promise<Rate> {
  const { flops, timing } = await linearSpeed(YARDSTICK, 'f32', device, { least: 10, most: 50, budgetMs: 1000 }, signal);
  return rateOf(flops / 1e9, timing);
}

type StepResult = Omit<TrainResult, 'gemmGflops' | 'shareOfGemm' | 'productShareOfGemm'>;

function compared(result: StepResult, gemmGflops: Rate): TrainResult {
  const shareOfGemm = result.modelGflops.perSecond / gemmGflops.perSecond;
  return { ...result, gemmGflops, shareOfGemm, productShareOfGemm: result.productGflops / gemmGflops.perSecond };
}

async function measureStep(
  name: TrainBenchModel,
  device: Device,
  { levels, lengthTokens: length, recompute, repetition, signal }: TrainSuiteOptions,
): Promise<StepResult> {
  const { config, batch } = TRAIN_BENCH_MODELS[name];
  await using lm = await MatMambaLMHeadModel.create(config, { ...device, seed: 0 });
  const engine = await TrainingEngine.attach(lm);
  const { dModel, nLayer } = lm.config;
  const inputs = randomBatch(batch * length, lm.vocabSize, levels.length);
  let steps = 0;
  const step = async (onProfile?: (ops: readonly OpProfile[]) => void): Promise<void> => {
    const call = { signal, ...(onProfile ? { onProfile } : {}) };
    for (const level of levels) {
      const dims = Array.from({ length: nLayer }, () => dimsOfLevel(level, dModel));
      const shape = { batch, length, dims, recompute, projDropRate: 0, dropPathRate: 0, distill: 0 };
      await engine.accumulate(shape, inputs, call);
    }
    await engine.update(++steps, 1e-4, call);
  };
  const memory = new MemoryWatch();
  try {
    const timing = await measure(() => step(), repetition, signal);
    const ops: OpProfile[] = [];
    await step((part) => void ops.push(...part));
    const products = sumOf(ops.filter(({ op }) => MATRIX_OPS.test(op)));
    const modelFlops = levels.reduce((sum, level) => sum + batch * length * flopsOfToken(lm, level), 0);
    const modelGflops = rateOf(modelFlops / 1e9, timing);
    return {
      kind: 'train',
      model: name,
      ...device,
      levels,
      batch,
      lengthTokens: length,
      recompute,
      step: timing,
      tokens: rateOf(batch * length * levels.length, timing),
      modelFlops,
      modelGflops,
      shareInProducts: products.ms / sumOf(ops).ms,
      productGflops: products.flops / 1e6 / products.ms,
      peakMemoryBytes: memory.peakBytes,
      ops,
    };
  } finally {
    memory.stop();
    engine.dispose();
  }
}

/** Model FLOPs of one token, forward and backward, as the header says. */
export function flopsOfToken({ config, vocabSize }: Pick<MatMambaLMHeadModel, 'config' | 'vocabSize'>, level: number): number {
  const { dModel: D, nLayer, ssmCfg } = config;
  const N = ssmCfg.dState ?? 128;
  const e = 2 * dimsOfLevel(level, D);
  const heads = (32 * e) / D;
  const matrices = D * (2 * e + 2 * N + heads) + e * D;
  return nLayer * (6 * matrices + 15 * e * N) + 6 * D * vocabSize;
}

function randomBatch(count: number, vocabSize: number, levels: number): Record<string, Int32Array | Float32Array> {
  const random = new Random(0, 'train bench');
  const draw = (): Int32Array => Int32Array.from({ length: count }, () => random.uint32() % vocabSize);
  const scale = new Float32Array(count).fill(1 / (count * levels));
  return { ids: draw(), targets: draw(), scale, seed: new Int32Array(3) };
}

function sumOf(ops: readonly OpProfile[]): { ms: number; flops: number } {
  return ops.reduce((sum, { ms, flops }) => ({ ms: sum.ms + ms, flops: sum.flops + flops }), { ms: 0, flops: 0 });
}

/** The largest resident memory; the thread that asks is idle while the workers compute. */
class MemoryWatch {
  readonly #timer: NodeJS.Timeout;
  #peak = process.memoryUsage.rss();

  constructor() {
    this.#timer = setInterval(() => this.#look(), MEMORY_SAMPLE_MS);
  }

  get peakBytes(): number {
    this.#look();
    return this.#peak;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    this.#peak = Math.max(this.#peak, process.memoryUsage.rss());
  }
}
