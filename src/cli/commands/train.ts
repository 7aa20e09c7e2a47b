/** `matmamba train lm`: a language model, trained at several widths at once. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { SAMPLINGS } from '../../data/index.ts';
import { connect } from '../../distributed/index.ts';
import { MatMambaError } from '../../errors.ts';
import type { MambaConfig } from '../../models/config.ts';
import { trainLanguageModel } from '../../train/language-run.ts';
import { formatDuration, formatProgress } from '../../train/log/progress.ts';
import { RateMeter } from '../../train/log/rate-meter.ts';
import { type LanguagePreset, TRAIN_PRESETS, TRAIN_PRESET_NAMES, isTrainPresetName } from '../../train/presets.ts';
import type { RecipeOptions } from '../../train/run.ts';
import type { StepRecord } from '../../train/trainer.ts';
import { type CheckedArguments, UsageError } from '../arguments.ts';
import { defineCliCommand } from '../command.ts';
import type { Io } from '../io.ts';
import { deviceArgs, deviceOptions, deviceSettings, flag, jsonArgs, real, text, whole, wholeList } from '../options.ts';

const LM_PRESETS = TRAIN_PRESET_NAMES.filter((name) => TRAIN_PRESETS[name].kind === 'language');

const args: ArgsDef = {
  kind: { type: 'positional', required: true, description: 'what to train: lm' },
  data: { type: 'string', valueHint: 'DIR|FILE', description: 'training tokens, as `matmamba data text` makes them; may be repeated' },
  validation: { type: 'string', valueHint: 'DIR|FILE', description: 'held-out tokens (default: those of the data folder)' },
  out: { type: 'string', valueHint: 'DIR', description: 'the folder of the run; started again, it goes on from its last checkpoint' },
  preset: { type: 'enum', options: LM_PRESETS, description: 'shape and recipe; every option below changes one thing of it' },
  'd-model': { type: 'string', valueHint: 'N', description: 'width of the model, a multiple of 32' },
  layers: { type: 'string', valueHint: 'N', description: 'number of layers' },
  'd-state': { type: 'string', valueHint: 'N', description: 'columns of the state (default 128)' },
  vocabulary: { type: 'string', valueHint: 'N', description: 'size of the vocabulary' },
  'init-from': { type: 'string', valueHint: 'DIR', description: 'start from these weights' },
  tokenizer: { type: 'string', valueHint: 'DIR', description: 'folder of the tokenizer that the model carries along (default: the data folder)' },
  levels: { type: 'string', valueHint: 'N[,N...]', description: 'levels to train' },
  strategy: { type: 'enum', options: ['joint', 'sample'], description: 'every level in a step, or one level a micro-batch' },
  mixes: { type: 'string', valueHint: 'N', description: 'Mix’n’Match widths drawn anew in every step', default: '0' },
  steps: { type: 'string', valueHint: 'N', description: 'steps of the run' },
  batch: { type: 'string', valueHint: 'N', description: 'sequences of a step for each level' },
  'micro-batch': { type: 'string', valueHint: 'N', description: 'sequences at once; the batch is accumulated from them', default: '4' },
  length: { type: 'string', valueHint: 'N', description: 'tokens of a sequence' },
  lr: { type: 'string', valueHint: 'X', description: 'highest learning rate' },
  warmup: { type: 'string', valueHint: 'N', description: 'steps of the linear warm-up' },
  sampling: { type: 'enum', options: [...SAMPLINGS], description: 'windows anywhere, or each once an epoch', default: 'permuted' },
  recompute: { type: 'boolean', description: 'compute activations again instead of keeping them: less memory, a third more work' },
  'validate-every': { type: 'string', valueHint: 'N', description: 'steps between validations' },
  'validation-windows': { type: 'string', valueHint: 'N', description: 'held-out sequences', default: '32' },
  'save-every': { type: 'string', valueHint: 'N', description: 'steps between checkpoints', default: '100' },
  seed: { type: 'string', valueHint: 'N', description: 'seed of weights, data order and dropout', default: '0' },
  threads: deviceArgs.threads,
  blas: deviceArgs.blas,
  ...jsonArgs,
};

const options = z.object({
  kind: z.literal('lm', { error: 'expected lm' }),
  data: text,
  validation: text,
  out: text,
  preset: z.enum(LM_PRESETS as [string, ...string[]]).optional(),
  'd-model': whole(32).optional(),
  layers: whole(1).optional(),
  'd-state': whole(1).optional(),
  vocabulary: whole(1).optional(),
  'init-from': text,
  tokenizer: text,
  levels: wholeList(1, 'levels with commas between them, for example 1,2,4,8').optional(),
  strategy: z.enum(['joint', 'sample']).optional(),
  mixes: whole(0),
  steps: whole(1).optional(),
  batch: whole(1).optional(),
  'micro-batch': whole(1),
  length: whole(1).optional(),
  lr: real(0).optional(),
  warmup: whole(0).optional(),
  sampling: z.enum(SAMPLINGS).default('permuted'),
  recompute: flag,
  'validate-every': whole(1).optional(),
  'validation-windows': whole(1),
  'save-every': whole(1),
  seed: whole(0),
  threads: deviceOptions.threads,
  blas: deviceOptions.blas,
  json: flag,
});

export const trainCommand = defineCliCommand({
  name: 'train',
  description: 'train a model at several widths at once',
  args,
  options,
  examples: [
    { command: 'matmamba train lm --data tokens --preset books-10m --out run', says: 'the recipe of the model in this package' },
    {
      command: 'matmamba train lm --data tokens --out run --d-model 128 --layers 4 --vocabulary 4096 --steps 500 --batch 16 --length 256 --lr 3e-3',
      says: 'a small model of your own',
    },
    { command: 'mpirun -n 2 matmamba train lm --data tokens --preset lm-130m --out run', says: 'two processes share each batch' },
  ],
  notes: [
    'The same command goes on where the run was stopped or killed, with the same losses as an unbroken run.',
    'The folder holds log.jsonl, TensorBoard events, curves.svg at the end, checkpoints/ (the last two) and best/.',
  ],
  run: train,
});

type Given = z.output<typeof options>;

async function train(given: Given, { all }: CheckedArguments, io: Io): Promise<void> {
  const data = all('data');
  if (data.length === 0) throw new UsageError('--data is missing', 'make token files first: matmamba data text INPUT --out DIR');
  if (given.out === undefined) throw new UsageError('--out is missing', 'name the folder of the run: --out DIR');
  const preset = presetOf(given.preset);
  const length = given.length ?? preset.lengthTokens;
  const recipe = recipeOf(given, preset);
  const { threads, blas } = deviceSettings(given, io);
  const communicator = await connect({ env: process.env });
  const report = new Reporter(given, recipe, length, io);
  const config: Partial<MambaConfig> = {
    ...preset.model,
    ...(given['d-model'] === undefined ? {} : { dModel: given['d-model'] }),
    ...(given.layers === undefined ? {} : { nLayer: given.layers }),
    ...(given.vocabulary === undefined ? {} : { vocabSize: given.vocabulary }),
    ...(given['d-state'] === undefined ? {} : { ssmCfg: { dState: given['d-state'] } }),
  };
  try {
    const summary = await trainLanguageModel({
      out: given.out,
      data,
      validationData: given.validation ?? (await heldOutOf(data[0]!)),
      tokenizer: given.tokenizer ?? data[0]!,
      sampling: given.sampling,
      length,
      config,
      initFrom: given['init-from'],
      validationWindows: given['validation-windows'],
      recipe,
      recompute: given.recompute === true,
      validateEvery: given['validate-every'] ?? preset.validateEvery,
      saveEvery: given['save-every'],
      communicator,
      signal: io.signal,
      threads,
      blas,
      onStep: (record) => report.step(record),
      onValidation: (step, losses) => report.validation(step, losses),
    });
    if (communicator.rank === 0) report.end(summary.last, summary.bestLoss);
  } catch (error) {
    if (communicator.size > 1 && !(error instanceof MatMambaError && error.code === 'ABORTED')) communicator.abort(String(error));
    throw error;
  }
  await communicator.finalize();
}

function presetOf(name: string | undefined): LanguagePreset {
  const chosen = name === undefined ? 'books-10m' : name;
  const preset = isTrainPresetName(chosen) ? TRAIN_PRESETS[chosen] : undefined;
  if (preset?.kind !== 'language') throw new UsageError(`there is no preset '${chosen}'`, `presets: ${LM_PRESETS.join(', ')}`);
  return preset;
}

/** The preset's recipe with the options that were given put over it. */
function recipeOf(given: Given, preset: LanguagePreset): RecipeOptions {
  const { schedule, betas, weightDecay, clipNorm } = preset;
  const totalSteps = given.steps ?? schedule.totalSteps;
  const batch = given.batch ?? preset.batch;
  return {
    strategy: { strategy: given.strategy ?? preset.strategy, levels: given.levels ?? preset.levels, mixes: given.mixes },
    batch,
    microBatch: Math.min(batch, given['micro-batch']),
    schedule: {
      ...schedule,
      totalSteps,
      peak: given.lr ?? schedule.peak,
      // A shorter run than the preset's warms up for the same share of it.
      warmupSteps: given.warmup ?? Math.min(schedule.warmupSteps, Math.ceil((schedule.warmupSteps * totalSteps) / schedule.totalSteps)),
    },
    adamw: { beta1: betas[0], beta2: betas[1], eps: 1e-8, weightDecay, maxNorm: clipNorm },
    projDropRate: preset.projDropRate,
    dropPathRate: preset.dropPathRate,
    seed: given.seed,
  };
}

/** The data folder itself when it has held-out shards. */
async function heldOutOf(data: string): Promise<string | undefined> {
  const { readdir } = await import('node:fs/promises');
  const names = await readdir(data).catch(() => []);
  return names.some((name) => name.startsWith('val') && name.endsWith('.bin')) ? data : undefined;
}

/** Progress on standard error, a line every few seconds; results on standard output. */
class Reporter {
  readonly #given: Given;
  readonly #io: Io;
  readonly #total: number;
  readonly #tokensPerStep: number;
  readonly #meter = new RateMeter();
  readonly #started = performance.now();
  #shown = -Infinity;

  constructor(given: Given, recipe: RecipeOptions, length: number, io: Io) {
    this.#given = given;
    this.#io = io;
    this.#total = recipe.schedule.totalSteps;
    const levels = (recipe.strategy.levels?.length ?? 4) + (recipe.strategy.mixes ?? 0);
    this.#tokensPerStep = recipe.batch * levels * length;
  }

  step(record: StepRecord): void {
    this.#meter.add(this.#tokensPerStep);
    if (this.#given.json) this.#io.json(record);
    const now = performance.now();
    if (this.#given.json || (now - this.#shown < 5000 && record.step !== this.#total)) return;
    this.#shown = now;
    const perSecond = this.#meter.perSecond;
    const secondsLeft = perSecond > 0 ? ((this.#total - record.step) * this.#tokensPerStep) / perSecond : undefined;
    this.#io.note(formatProgress({ ...record, totalSteps: this.#total, perSecond, unit: 'tokens', secondsLeft }));
  }

  validation(step: number, losses: Readonly<Record<string, number>>): void {
    this.#meter.skip();
    if (this.#given.json) this.#io.json({ step, validation: losses });
    else this.#io.note(`step ${step}   held out ${Object.entries(losses).map(([label, loss]) => `${label}: ${loss.toFixed(4)}`).join('  ')}`);
  }

  end(folder: string, bestLoss: number): void {
    const seconds = (performance.now() - this.#started) / 1000;
    const best = Number.isFinite(bestLoss) ? bestLoss : undefined;
    if (this.#given.json) this.#io.json({ folder, bestLoss: best, seconds });
    else this.#io.line(`${folder}: trained in ${formatDuration(seconds)}${best === undefined ? '' : `, best held-out loss ${best.toFixed(4)}`}`);
  }
}
