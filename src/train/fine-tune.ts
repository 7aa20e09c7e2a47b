/**
 * Fine-tuning a language model on a text that fits in memory: no files, no other processes, so it runs in browsers as
 * in Node. All levels are trained together, so that the model stays nested.
 *
 * Windows begin anywhere in the text, drawn by (seed, step, micro-batch, row): equal options repeat the same steps.
 */

import { SingleProcess } from '../distributed/communicator.ts';
import { TRAINED_LEVELS, widthStep } from '../elastic/granularity.ts';
import { MatMambaError, refuseUnknownKeys, throwIfAborted } from '../errors.ts';
import type { MatMambaLMHeadModel } from '../models/language-model.ts';
import { Random } from '../tensor/random.ts';
import { defaultTokenizerFor } from '../text/index.ts';
import { type AdamWOptions, TrainingEngine } from './engine.ts';
import { GradientSum } from './gradient-sum.ts';
import { learningRateSchedule } from './schedule.ts';
import { createStrategy } from './strategy.ts';
import { type StepRecord, type TrainingData, train } from './trainer.ts';

export interface FineTuneOptions {
  readonly steps: number;
  /** Windows of a level in a step. Default: 4. */
  readonly batch?: number | undefined;
  /** Tokens of a window. Default: 128. */
  readonly length?: number | undefined;
  /** Highest rate, after a warm-up of a tenth of the steps; a cosine takes it down to 0. Default: 3e-4. */
  readonly learningRate?: number | undefined;
  /** Levels that are trained in every step. Default: those of 1, 2, 4 and 8 that the model can be cut to. */
  readonly levels?: readonly number[] | undefined;
  readonly adamw?: Partial<AdamWOptions> | undefined;
  /** Compute activations again in the backward pass: about a third more work, a fraction of the memory. */
  readonly recompute?: boolean | undefined;
  readonly seed?: number | undefined;
  /** Told of every step. */
  readonly onStep?: ((record: StepRecord) => void) | undefined;
  /** Ends it after the step that runs; what was learned so far stays. */
  readonly signal?: AbortSignal | undefined;
}

const OPTION_KEYS = [
  'steps',
  'batch',
  'length',
  'learningRate',
  'levels',
  'adamw',
  'recompute',
  'seed',
  'onStep',
  'signal',
] as const;

/**
 * Trains a float32 model on a text, or on token ids; its weights change. Gradients and moments take three times the
 * memory of the weights, and are freed at the end.
 * @throws OPTION; TOKEN for ids outside the vocabulary, a text that is too short, or one without a tokenizer; WIDTH, MEMORY,
 * DEVICE; WEIGHTS when the loss is no number any more; ABORTED
 */
export async function fineTune(
  model: MatMambaLMHeadModel,
  text: string | ArrayLike<number>,
  options: FineTuneOptions,
): Promise<void> {
  refuseUnknownKeys(options, OPTION_KEYS, 'fineTune');
  const {
    steps,
    batch = 4,
    length = 128,
    learningRate = 3e-4,
    adamw = {},
    recompute = false,
    seed = 0,
    onStep,
    signal,
  } = options;
  for (const [name, value] of Object.entries({ steps, batch, length })) {
    if (Number.isSafeInteger(value) && value >= 1) continue;
    throw new MatMambaError('OPTION', `${name} is ${String(value)}`, { hint: `${name} is a whole number of at least 1` });
  }
  const { dModel, nLayer } = model.config;
  const { levels = TRAINED_LEVELS.filter((level) => dModel % (level * widthStep(dModel)) === 0) } = options;
  const strategy = createStrategy({ strategy: 'joint', dModel, nLayer, levels, seed });
  const rate = learningRateSchedule({ peak: learningRate, warmupSteps: Math.floor(steps / 10), totalSteps: steps });
  const ids = await idsOf(model, text, length);
  throwIfAborted(signal);
  const engine = await TrainingEngine.attach(model, adamw);
  try {
    await train(
      {
        model,
        engine,
        data: windowsOf(ids, length, batch, seed),
        communicator: new SingleProcess(),
        gradientSum: new GradientSum(),
        hooks: {
          onStep(record) {
            onStep?.(record);
            throwIfAborted(signal);
          },
          save: async () => {},
        },
        strategy,
        learningRate: rate,
        steps,
        batch,
        lossesPerRow: length,
        shape: { length, recompute, projDropRate: 0, dropPathRate: 0 },
        distillation: 0,
        seed,
        validateEvery: steps,
        saveEvery: steps,
      },
      0,
    );
  } finally {
    engine.dispose();
    await model.runtime.backend.settled();
  }
}

/** @throws TOKEN */
async function idsOf(model: MatMambaLMHeadModel, text: string | ArrayLike<number>, length: number): Promise<Int32Array> {
  const words = typeof text === 'string' ? (model.tokenizer ??= await defaultTokenizerFor(model.config.vocabSize)) : undefined;
  const ids = words ? words.encode(text as string) : Int32Array.from(text as ArrayLike<number>);
  if (ids.length <= length) {
    throw new MatMambaError('TOKEN', `the text has ${ids.length} tokens, a window and its last target ${length + 1}`, {
      hint: 'give more text, or a smaller length',
    });
  }
  const bad = ids.findIndex((id, i) => id < 0 || id >= model.vocabSize || id !== (words ? id : (text as ArrayLike<number>)[i]));
  if (bad < 0) return ids;
  throw new MatMambaError('TOKEN', `token ${bad} of the text is ${String(words ? ids[bad] : text[bad])}`, {
    hint: `ids are whole numbers from 0 to ${model.vocabSize - 1}`,
  });
}

function windowsOf(ids: Int32Array, length: number, batch: number, seed: number): TrainingData {
  return {
    async inputs(step, index, { start, end }) {
      const rows = end - start;
      const inputs = new Int32Array(rows * length);
      const targets = new Int32Array(rows * length);
      const random = new Random(seed, `windows/${step}/${index}`);
      const starts = Array.from({ length: batch }, () => Math.floor((random.uint32() / 2 ** 32) * (ids.length - length)));
      for (let row = 0; row < rows; row++) {
        const first = starts[start + row]!;
        inputs.set(ids.subarray(first, first + length), row * length);
        targets.set(ids.subarray(first + 1, first + 1 + length), row * length);
      }
      return { ids: inputs, targets };
    },
  };
}
