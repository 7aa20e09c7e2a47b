/** Training a language model: token files in, a model trained at several widths out. */

import { MatMambaError } from '../errors.ts';
import { TokenLoader, TokenSet, listTokenFiles } from '../data/index.ts';
import type { Sampling } from '../data/loader.ts';
import type { Communicator } from '../distributed/communicator.ts';
import { dimsOfLevel } from '../elastic/granularity.ts';
import type { MambaConfig } from '../models/config.ts';
import { loadFolderTokenizer } from '../models/folder-tokenizer.ts';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import { tensor } from '../tensor/tensor.ts';
import { FolderLog } from './run-log.ts';
import { type RunOptions, type RunSummary, type TrainingDevice, deviceFacts, findResume, runTraining } from './run.ts';
import type { TrainingData } from './trainer.ts';

export interface LanguageRunOptions extends Pick<
  RunOptions,
  | 'out'
  | 'recipe'
  | 'recompute'
  | 'validateEvery'
  | 'saveEvery'
  | 'communicator'
  | 'shardOptimizer'
  | 'signal'
  | 'onStep'
  | 'onValidation'
> {
  /** Folders or files of training tokens. */
  readonly data: readonly string[];
  /** Held-out tokens: a file, or a folder whose `val_*.bin` are read. None: no validation. */
  readonly validationData?: string | undefined;
  /** The folder whose tokenizer the model carries along. */
  readonly tokenizer?: string | undefined;
  readonly sampling: Sampling;
  /** T. */
  readonly length: number;
  /** Shape of a new model. */
  readonly config: Partial<MambaConfig>;
  /** Start from these weights in place of random ones. */
  readonly initFrom?: string | undefined;
  /** Held-out windows of T tokens measured at each level. */
  readonly validationWindows: number;
  readonly device?: TrainingDevice | undefined;
}

/** Trains, or goes on from the last checkpoint in the folder. @throws see `runTraining`; TOKEN for ids outside the vocabulary */
export async function trainLanguageModel(options: LanguageRunOptions): Promise<RunSummary> {
  const { out, recipe, length, communicator, validationData } = options;
  const resume = await findResume(out, communicator);
  const device = options.device ?? {};
  const from = resume?.folder ?? options.initFrom;
  await using model = from
    ? await MatMambaLMHeadModel.fromPretrained(from, device)
    : await MatMambaLMHeadModel.create(options.config, { ...device, seed: recipe.seed });
  if (options.tokenizer !== undefined) model.tokenizer ??= await loadFolderTokenizer(options.tokenizer);
  await using loader = await TokenLoader.open([...options.data], {
    batchSize: recipe.microBatch,
    length,
    vocabSize: model.vocabSize,
    seed: recipe.seed,
    sampling: options.sampling,
    microBatches: microBatchesOfStep(recipe),
  });
  await using held = validationData === undefined ? undefined : await TokenSet.open(await listTokenFiles(validationData, 'val'));
  if (held && held.length <= length) {
    throw new MatMambaError('FORMAT', `${validationData}: ${held.length} tokens hold no window of ${length}`, {
      hint: 'prepare more held-out text, or train with shorter windows',
    });
  }
  const { dModel, nLayer } = model.config;
  return await runTraining(
    model,
    dataOf(loader, communicator),
    resume,
    {
      ...options,
      facts: {
        ...deviceFacts(device),
        model: options.config,
        initFrom: options.initFrom ?? null,
        sampling: options.sampling,
        tokens: loader.tokens,
      },
      lossesPerRow: length,
      validate: held && (() => heldOutLosses(model, held, options)),
      log: new FolderLog(out),
    },
    dModel,
    nLayer,
  );
}

/** Micro-batches of all levels in a step, over all processes. */
function microBatchesOfStep({ batch, microBatch, strategy }: RunOptions['recipe']): number {
  return Math.max(1, Math.floor(batch / microBatch)) * ((strategy.levels?.length ?? 4) + (strategy.mixes ?? 0));
}

/** Rank r of n reads part r of each global micro-batch, so the windows of a step do not depend on n. */
function dataOf(loader: TokenLoader, { rank, size }: Communicator): TrainingData {
  return {
    async inputs(step, index) {
      const { ids, targets } = await loader.batch({ step, microBatch: index * size + rank });
      return { ids, targets };
    },
  };
}

/** Mean loss of each trained level on the first windows of the held-out tokens. */
async function heldOutLosses(
  model: MatMambaLMHeadModel,
  held: TokenSet,
  { recipe, length, validationWindows }: LanguageRunOptions,
): Promise<Record<string, number>> {
  const windows = Math.min(validationWindows, Math.floor((held.length - 1) / length));
  const losses: Record<string, number> = {};
  for (const level of recipe.strategy.levels ?? [1, 2, 4, 8]) {
    let sum = 0;
    for (let window = 0; window < windows; window++) {
      const tokens = Int32Array.from(await held.read(window * length, length + 1, model.vocabSize));
      const shape = [1, length];
      const widths = { mixnmatchDims: dimsOfLevel(level, model.config.dModel) };
      const loss = await model.loss(tensor(tokens.slice(0, -1), shape), tensor(tokens.slice(1), shape), widths);
      for (const value of loss.toFloat32()) sum += value;
    }
    losses[`level ${level}`] = sum / (windows * length);
  }
  return losses;
}
