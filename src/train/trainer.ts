/**
 * The training loop: micro-batches at the widths that the strategy asks for, one clipped AdamW step, logs, held-out
 * losses and checkpoints on schedule. Everything random is a function of (seed, step, micro-batch), so a run that is
 * killed and started again from its last checkpoint repeats the unbroken run bit for bit.
 *
 * With several processes every rank computes its rows of each micro-batch, gradients are summed over the ranks, and
 * rank 0 writes.
 */

import type { ProgramInputs } from '../backends/backend.ts';
import type { Communicator } from '../distributed/communicator.ts';
import { type Share, batchRows } from '../distributed/shares.ts';
import { MatMambaError } from '../errors.ts';
import type { TrainableModel, TrainingShape } from '../models/training.ts';
import { Random } from '../tensor/random.ts';
import type { TrainingEngine } from './engine.ts';
import type { GradientSum } from './gradient-sum.ts';
import type { Strategy } from './strategy.ts';

/** Where batches come from. */
export interface TrainingData {
  /** Inputs of the given rows of a global micro-batch, without `scale` and `seed`. */
  inputs(step: number, index: number, rows: Share): Promise<ProgramInputs>;
}

export interface StepRecord {
  /** Steps done, this one included. */
  readonly step: number;
  /** Mean loss of each label in this step, nats. */
  readonly losses: Readonly<Record<string, number>>;
  readonly learningRate: number;
  /** Global norm of the gradients before clipping. */
  readonly gradientNorm: number;
  readonly seconds: number;
}

export interface TrainerHooks {
  /** After every step, on rank 0. */
  onStep(record: StepRecord): void | Promise<void>;
  /** Held-out losses by label; called when due, on rank 0. */
  validate?: (step: number) => Promise<Readonly<Record<string, number>>>;
  onValidation?: (step: number, losses: Readonly<Record<string, number>>) => void | Promise<void>;
  /** Writes a checkpoint after so many steps, on rank 0. */
  save(step: number, bestLoss: number): Promise<void>;
  /** What the other ranks do for it meanwhile. */
  helpToSave?: () => Promise<void>;
  /** Writes the best model so far, on rank 0. */
  saveBest?: (step: number, loss: number) => Promise<void>;
}

export interface TrainerOptions {
  readonly model: TrainableModel;
  readonly engine: TrainingEngine;
  readonly data: TrainingData;
  readonly communicator: Communicator;
  readonly gradientSum: GradientSum;
  readonly hooks: TrainerHooks;
  readonly strategy: Strategy;
  /** Learning rate of a step, counted from 0. */
  readonly learningRate: (step: number) => number;
  readonly steps: number;
  /** Rows of a global micro-batch: sequences or images. */
  readonly batch: number;
  /** Losses in a row: tokens of a sequence, 1 for an image. */
  readonly lossesPerRow: number;
  readonly shape: Pick<TrainingShape, 'length' | 'recompute' | 'projDropRate' | 'dropPathRate'>;
  /** Share of the target that the full model's prediction takes in parts that the strategy marks. */
  readonly distillation: number;
  readonly seed: number;
  readonly validateEvery: number;
  readonly saveEvery: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Trains from `firstStep` (steps done already) to the end. On an abort a checkpoint is written first.
 * @returns the best held-out loss
 * @throws WEIGHTS when a loss or gradient is not finite: nothing is updated or saved, the last checkpoint stays
 */
export async function train(options: TrainerOptions, firstStep: number, bestBefore = Infinity): Promise<number> {
  const { engine, communicator, hooks, steps, saveEvery, validateEvery, signal } = options;
  const leads = communicator.rank === 0;
  const rows = batchRows(options.batch, communicator);
  const queue = new Prefetch(options, rows, firstStep);
  let best = bestBefore;
  let saved = firstStep;
  const save = async (step: number): Promise<void> => {
    if (saved === step) return;
    saved = step;
    await (leads ? hooks.save(step, best) : hooks.helpToSave?.());
    await communicator.barrier();
  };
  try {
    for (let step = firstStep; step < steps; step++) {
      const started = performance.now();
      const learningRate = options.learningRate(step);
      const { losses, gradientNorm } = await runStep(options, queue, step, rows, learningRate);
      if (!Number.isFinite(gradientNorm)) throw await divergence(engine, step, losses);
      const seconds = (performance.now() - started) / 1000;
      if (leads) await hooks.onStep({ step: step + 1, losses, learningRate, gradientNorm, seconds });
      const isLast = step + 1 === steps;
      if (hooks.validate && (isLast || (step + 1) % validateEvery === 0)) best = await validate(options, step + 1, best);
      if (isLast || (step + 1) % saveEvery === 0) await save(step + 1);
      if (await anyWantsToStop(options)) {
        await save(step + 1);
        throw new MatMambaError('ABORTED', `stopped after step ${step + 1}; a checkpoint was written`, { cause: signal?.reason });
      }
    }
  } finally {
    await queue.drain();
  }
  return best;
}

/** Whether a rank was told to stop: signals do not reach all of them in the same step, so they agree on it. */
async function anyWantsToStop({ communicator, signal }: TrainerOptions): Promise<boolean> {
  const stop = Float64Array.of(signal?.aborted ? 1 : 0);
  await communicator.allReduceSum(stop);
  return stop[0]! > 0;
}

/** More micro-batches than this, or widths drawn anew in every step, are not worth a program of their own. */
const WHOLE_STEP_PARTS = 8;

/** All micro-batches of a step and the update; mean losses by label over all ranks, the gradients' norm before clipping. */
async function runStep(
  options: TrainerOptions,
  queue: Prefetch,
  step: number,
  rows: Share,
  learningRate: number,
): Promise<{ losses: Record<string, number>; gradientNorm: number }> {
  const { engine, communicator, shape, batch, lossesPerRow, seed } = options;
  const mine = rows.end - rows.start;
  const parts = options.strategy.parts(step);
  const sums = new Float64Array(parts.length);
  const random = new Random(seed, 'dropout');
  const [key0, key1] = [random.uint32() | 0, random.uint32() | 0];
  const whole = engine.stepsWhole && parts.length <= WHOLE_STEP_PARTS && !parts.some(({ label }) => label === 'mix');
  const batches: { shape: TrainingShape; inputs: ProgramInputs }[] = [];
  const addLosses = (i: number, losses: Float32Array): void => {
    let sum = 0;
    for (let j = 0; j < losses.length; j++) sum += losses[j]!;
    sums[i] = sum;
  };
  /** The micro-batch that runs while the one behind it is prepared and queued. */
  let running = Promise.resolve();
  for (const [i, { widths, weight, index, distill }] of parts.entries()) {
    const inputs = await queue.take(step, index);
    const scale = new Float32Array(mine * lossesPerRow).fill(weight / (batch * lossesPerRow));
    // Masks go by the row of the whole step, however it is cut into micro-batches and shared by ranks.
    const given = { ...inputs, scale, seed: Int32Array.of(key0 ^ step, key1, index * batch + rows.start) };
    const taught = distill ? options.distillation : 0;
    const part = { shape: { ...shape, batch: mine, dims: widths, distill: taught }, inputs: given };
    if (whole) {
      batches.push(part);
      continue;
    }
    const queued = engine.accumulate(part.shape, part.inputs).then((losses) => addLosses(i, losses));
    // What fails is thrown where it is waited for; until then it is no unhandled rejection.
    queued.catch(() => {});
    await running;
    running = queued;
  }
  await running;
  let gradientNorm: number;
  if (whole) {
    const results = await engine.step(batches, step + 1, learningRate);
    for (const [i, losses] of results.losses.entries()) addLosses(i, losses);
    gradientNorm = results.norm;
  } else {
    await options.gradientSum.reduce(engine, communicator);
    gradientNorm = await engine.update(step + 1, learningRate);
  }
  await communicator.allReduceSum(sums);
  const totals: Record<string, { sum: number; count: number }> = {};
  for (const [i, { label }] of parts.entries()) {
    const total = (totals[label] ??= { sum: 0, count: 0 });
    total.sum += sums[i]!;
    total.count += batch * lossesPerRow;
  }
  const losses = Object.fromEntries(Object.entries(totals).map(([label, { sum, count }]) => [label, sum / count]));
  return { losses, gradientNorm };
}

/** Rank 0 measures the held-out losses; the best model by their mean is kept. */
async function validate({ communicator, hooks }: TrainerOptions, step: number, best: number): Promise<number> {
  const result = Float64Array.of(best);
  if (communicator.rank === 0) {
    const losses = await hooks.validate!(step);
    await hooks.onValidation?.(step, losses);
    const values = Object.values(losses);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    if (mean < best) {
      result[0] = mean;
      await hooks.saveBest?.(step, mean);
    }
  }
  await communicator.broadcast(result, 0);
  return result[0]!;
}

async function divergence(engine: TrainingEngine, step: number, losses: Record<string, number>): Promise<MatMambaError> {
  const bad = (await engine.firstBad('weight')) ?? (await engine.firstBad('gradient'));
  const where = bad
    ? `the ${bad.kind} ${bad.name} is ${bad.value} at element ${bad.element}`
    : 'the norm of the gradients is not finite';
  const list = Object.entries(losses).map(([label, loss]) => `${label}: ${loss.toFixed(4)}`);
  return new MatMambaError('WEIGHTS', `step ${step + 1} diverged: ${where} (${list.join(', ')})`, {
    hint: 'no weight was changed; go on from the last checkpoint with a lower learning rate or a longer warm-up',
  });
}

/** Prepares micro-batches while those before them run. */
class Prefetch {
  readonly #options: TrainerOptions;
  readonly #rows: Share;
  readonly #ahead = new Map<string, Promise<ProgramInputs>>();
  /** Micro-batches prepared beyond the one that is taken: the next step's, where steps run whole. */
  readonly #depth: number;

  constructor(options: TrainerOptions, rows: Share, firstStep: number) {
    this.#options = options;
    this.#rows = rows;
    this.#depth = options.engine.stepsWhole ? options.strategy.microBatches : 1;
    if (firstStep < options.steps) void this.#prepare(firstStep, options.strategy.parts(firstStep)[0]!.index);
  }

  async take(step: number, index: number): Promise<ProgramInputs> {
    const key = `${step}/${index}`;
    const ready = this.#ahead.get(key) ?? this.#prepare(step, index);
    const inputs = await ready;
    this.#ahead.delete(key);
    let next = this.#after(step, index);
    for (let ahead = 0; next && ahead < this.#depth; ahead++) {
      if (!this.#ahead.has(`${next[0]}/${next[1]}`)) void this.#prepare(...next);
      next = this.#after(...next);
    }
    return inputs;
  }

  /** Waits for what is being read, so that its files can be closed. */
  async drain(): Promise<void> {
    await Promise.allSettled(this.#ahead.values());
  }

  #prepare(step: number, index: number): Promise<ProgramInputs> {
    const inputs = this.#options.data.inputs(step, index, this.#rows);
    inputs.catch(() => {});
    this.#ahead.set(`${step}/${index}`, inputs);
    return inputs;
  }

  #after(step: number, index: number): [number, number] | undefined {
    const parts = this.#options.strategy.parts(step);
    const at = parts.findIndex((part) => part.index === index) + 1;
    if (at < parts.length) return [step, parts[at]!.index];
    return step + 1 < this.#options.steps ? [step + 1, this.#options.strategy.parts(step + 1)[0]!.index] : undefined;
  }
}
