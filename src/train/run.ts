/**
 * A whole training run in a folder: model, optimiser, data, logs and checkpoints put together, started or resumed.
 *
 *   RUN/run.json            the options that decide the result; a resume must repeat them
 *   RUN/device.json         choices that the device made by measuring; a resume on the same kind of device repeats them
 *   RUN/log.jsonl           a line per step and per validation
 *   RUN/events.out.tfevents.*  the same for TensorBoard
 *   RUN/curves.svg          loss curves, drawn when the run ends
 *   RUN/checkpoints/, RUN/best/
 */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { formatPythonJson, writeFileAtomic } from '../checkpoint/index.ts';
import type { Communicator } from '../distributed/communicator.ts';
import { batchRows } from '../distributed/shares.ts';
import { MatMambaError } from '../errors.ts';
import type { Model } from '../models/model.ts';
import type { ModelOptions } from '../models/runtime.ts';
import type { TrainableModel, TrainingShape } from '../models/training.ts';
import { type AdamWOptions, TrainingEngine } from './engine.ts';
import { GradientSum } from './gradient-sum.ts';
import { loadMoments, saveMoments, sendMoments } from './optimizer-file.ts';
import { RunStore, type StoredCheckpoint } from './run-store.ts';
import { type Schedule, learningRateSchedule } from './schedule.ts';
import { type StrategyOptions, createStrategy } from './strategy.ts';
import { type StepRecord, type TrainingData, train } from './trainer.ts';

/** Where a run computes and in what. */
export type TrainingDevice = Pick<ModelOptions, 'device' | 'dtype' | 'threads' | 'blas' | 'index'>;

/** What decides the numbers of a run; stored with it. */
export interface RecipeOptions {
  readonly strategy: Omit<StrategyOptions, 'dModel' | 'nLayer' | 'microBatches' | 'seed'>;
  /** Rows (sequences or images) of a step for each level (`joint`) or each part of one level (`sample`). */
  readonly batch: number;
  /** Rows that go through a program at once on each process; `batch` is accumulated from them. */
  readonly microBatch: number;
  readonly schedule: Schedule;
  readonly adamw: AdamWOptions;
  readonly projDropRate: number;
  readonly dropPathRate: number;
  /** Share of the target that narrower widths take from the full model's prediction, when the strategy distils. */
  readonly distillation: number;
  readonly seed: number;
}

export interface RunOptions {
  readonly out: string;
  readonly recipe: RecipeOptions;
  /** Further facts that a resume must repeat, such as the data's hash. */
  readonly facts: Readonly<Record<string, unknown>>;
  readonly length: number;
  /** Losses in a row: tokens of a sequence, 1 for an image. */
  readonly lossesPerRow: number;
  readonly recompute: boolean;
  readonly validateEvery: number;
  readonly saveEvery: number;
  readonly communicator: Communicator;
  /** Keep AdamW's moments of each parameter on one rank only; a resume may change it. */
  readonly shardOptimizer?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Held-out losses by label; none without held-out data. */
  readonly validate?: (() => Promise<Readonly<Record<string, number>>>) | undefined;
  /** Told of every step, on rank 0. */
  readonly onStep?: ((record: StepRecord, total: number) => void) | undefined;
  readonly onValidation?: ((step: number, losses: Readonly<Record<string, number>>) => void) | undefined;
  /** Where steps are recorded. */
  readonly log?: RunLog | undefined;
}

/** Records of a run on disk. */
export interface RunLog {
  /** Forgets what a killed run recorded beyond the step that is resumed. */
  start(step: number): Promise<void>;
  step(record: StepRecord): Promise<void>;
  validation(step: number, losses: Readonly<Record<string, number>>): Promise<void>;
  /** Makes what was recorded safe; called before a checkpoint counts. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

export interface RunSummary {
  readonly firstStep: number;
  readonly steps: number;
  readonly bestLoss: number;
  /** Folder of the last checkpoint. */
  readonly last: string;
}

interface Progress {
  readonly step: number;
  /** null before the first validation. */
  readonly bestLoss: number | null;
}

/** What a resume must repeat of the device: the dtype, where it is not plain float32. */
export function deviceFacts({ dtype = 'f32' }: TrainingDevice): Readonly<Record<string, unknown>> {
  return dtype === 'f32' ? {} : { dtype };
}

/** The checkpoint that a run in this folder goes on from. @throws FILE */
export async function findResume(out: string, communicator: Communicator): Promise<StoredCheckpoint | undefined> {
  const store = new RunStore(out);
  if (communicator.rank === 0) await store.prepare();
  await communicator.barrier();
  return store.latest();
}

/**
 * Runs `recipe.schedule.totalSteps` steps, those that `resume` has done left out.
 * @throws OPTION when a resume changes what decides the result; WEIGHTS when the run diverges; FILE, MEMORY, ABORTED
 */
export async function runTraining(
  model: TrainableModel & Model,
  data: TrainingData,
  resume: StoredCheckpoint | undefined,
  options: RunOptions,
  dModel: number,
  nLayer: number,
): Promise<RunSummary> {
  const { out, recipe, communicator } = options;
  const { batch, microBatch, schedule, seed, projDropRate, dropPathRate } = recipe;
  const store = new RunStore(out);
  const rowsAtOnce = microBatch * communicator.size;
  batchRows(batch, communicator);
  if (batch % rowsAtOnce !== 0) {
    throw new MatMambaError(
      'OPTION',
      `a batch of ${batch} rows does not divide into micro-batches of ${microBatch} on ${communicator.size} process(es)`,
      {
        hint: `choose a batch that is a multiple of ${rowsAtOnce}`,
      },
    );
  }
  const perLevel = batch / rowsAtOnce;
  const choices = (recipe.strategy.levels?.length ?? 4) + (recipe.strategy.mixes ?? 0);
  const microBatches = recipe.strategy.strategy === 'joint' ? perLevel : perLevel * choices;
  const strategy = createStrategy({ ...recipe.strategy, dModel, nLayer, microBatches, seed });
  if (communicator.rank === 0)
    await keepOptions(out, { ...factsOf(recipe, rowsAtOnce), ...options.facts, length: options.length }, resume !== undefined);

  const { backend } = model.runtime;
  if (resume) backend.adoptChoices(await readChoices(out));
  const engine = await TrainingEngine.attach(model, recipe.adamw, { communicator, shard: options.shardOptimizer === true });
  const declared = [...model.parameters.declared.values()];
  const log = communicator.rank === 0 ? options.log : undefined;
  try {
    const before = resume ? await readProgress(resume.folder) : { step: 0, bestLoss: null };
    if (resume) await loadMoments(resume.folder, engine, declared);
    await log?.start(before.step);
    const shape: Pick<TrainingShape, 'length' | 'recompute' | 'projDropRate' | 'dropPathRate'> = {
      length: options.length,
      recompute: options.recompute,
      projDropRate,
      dropPathRate,
    };
    const bestLoss = await train(
      {
        model,
        engine,
        data,
        communicator,
        gradientSum: new GradientSum(),
        strategy,
        learningRate: learningRateSchedule(schedule),
        steps: schedule.totalSteps,
        batch: rowsAtOnce,
        lossesPerRow: options.lossesPerRow,
        shape,
        distillation: recipe.distillation,
        seed,
        validateEvery: options.validateEvery,
        saveEvery: options.saveEvery,
        signal: options.signal,
        hooks: {
          async onStep(record) {
            await log?.step(record);
            options.onStep?.(record, schedule.totalSteps);
          },
          ...(options.validate ? { validate: options.validate } : {}),
          async onValidation(step, losses) {
            await log?.validation(step, losses);
            options.onValidation?.(step, losses);
          },
          async save(step, best) {
            await log?.flush();
            await store.save(step, async (folder) => {
              await model.savePretrained(folder);
              await saveMoments(folder, engine, declared);
              await keepChoices(out, backend.choices());
              const progress: Progress = { step, bestLoss: Number.isFinite(best) ? best : null };
              await writeFileAtomic(join(folder, 'progress.json'), `${JSON.stringify(progress)}\n`);
            });
          },
          helpToSave: () => sendMoments(engine, declared),
          saveBest: (_step, _loss) => store.saveBest((folder) => model.savePretrained(folder)),
        },
      },
      before.step,
      before.bestLoss ?? Infinity,
    );
    await log?.close();
    const last = await store.latest();
    return { firstStep: before.step, steps: schedule.totalSteps, bestLoss, last: last?.folder ?? out };
  } catch (error) {
    // What went wrong counts, not that the log cannot be closed either.
    await log?.close().catch(() => {});
    throw error;
  } finally {
    engine.dispose();
  }
}

/**
 * What a resume must repeat of a recipe. In `joint` every level sees its rows of a step however they are cut up; in
 * `sample` the cut over all ranks decides which rows a level sees.
 */
function factsOf(recipe: RecipeOptions, rowsAtOnce: number): object {
  return { ...recipe, microBatch: recipe.strategy.strategy === 'joint' ? null : rowsAtOnce };
}

const CHOICES_FILE = 'device.json';

/** Nothing for a run that kept none. */
async function readChoices(out: string): Promise<Record<string, string>> {
  const text = await readFile(join(out, CHOICES_FILE), 'utf8').catch(() => '{}');
  try {
    return JSON.parse(text) as Record<string, string>;
  } catch (cause) {
    throw new MatMambaError('FORMAT', `${join(out, CHOICES_FILE)} cannot be read`, {
      hint: 'remove it: the run goes on, but may not repeat bit for bit',
      cause,
    });
  }
}

async function keepChoices(out: string, choices: Readonly<Record<string, string>>): Promise<void> {
  if (Object.keys(choices).length > 0) await writeFileAtomic(join(out, CHOICES_FILE), `${JSON.stringify(choices)}\n`);
}

async function readProgress(folder: string): Promise<Progress> {
  const path = join(folder, 'progress.json');
  try {
    const { step, bestLoss } = JSON.parse(await readFile(path, 'utf8')) as Progress;
    if (Number.isInteger(step) && (bestLoss === null || Number.isFinite(bestLoss))) return { step, bestLoss };
  } catch (cause) {
    throw new MatMambaError('FORMAT', `${path} cannot be read`, {
      hint: 'the checkpoint is damaged; remove its folder to go on from the one before',
      cause,
    });
  }
  throw new MatMambaError('FORMAT', `${path} holds no step`, {
    hint: 'remove the checkpoint folder to go on from the one before',
  });
}

/** Stores the options of a new run, or compares them with those of the run that is resumed. @throws OPTION, FILE */
async function keepOptions(out: string, options: object, resumes: boolean): Promise<void> {
  const path = join(out, 'run.json');
  const text = `${formatPythonJson(options, 2)}\n`;
  const before = await readFile(path, 'utf8').catch(() => undefined);
  if (!resumes || before === undefined) {
    await writeFileAtomic(path, text);
    return;
  }
  if (before === text) return;
  const [old, now] = [before.split('\n'), text.split('\n')];
  const at = now.findIndex((line, i) => line !== old[i]);
  throw new MatMambaError(
    'OPTION',
    `this run was started with other options: ${old[at]?.trim() ?? 'fewer'} became ${now[at]?.trim() ?? 'fewer'}`,
    {
      hint: `repeat the options of ${path}, or start in another folder`,
    },
  );
}
