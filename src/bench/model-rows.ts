/** What the suites of devices share: rows that run a model whole, and how one of them is timed. */

import type { ModelDType, OpProfile } from '../backends/backend.ts';
import type { MatMambaLMHeadModel } from '../models/language-model.ts';
import type { CallOptions } from '../models/runtime.ts';
import { Random } from '../tensor/random.ts';
import { Tensor } from '../tensor/tensor.ts';
import { type Repetition, type Timing, measure } from './measure.ts';

/** Runs one repetition, and tells what it is asked for. */
export type Work = (options?: Pick<CallOptions, 'onProfile' | 'onDeviceMs'>) => Promise<void>;

export interface Row {
  readonly name: string;
  readonly dtype: ModelDType;
  /** Tokens, or images, of one repetition. */
  readonly items: number;
  readonly work: Work;
}

export interface RowFigures {
  /** On the device. */
  readonly device: Timing;
  /** Of the whole public call, on the host's clock. */
  readonly timing: Timing;
  /** The passes of one repetition by op, run one by one. */
  readonly ops: readonly OpProfile[];
}

export async function timeRow({ work }: Pick<Row, 'work'>, repetition: Repetition, signal: AbortSignal): Promise<RowFigures> {
  const timing = await measure(() => work(), repetition, signal);
  const device = await measure(() => deviceMs(work), repetition, signal);
  const ops: OpProfile[] = [];
  await work({ onProfile: (part) => void ops.push(...part) });
  return { timing, device, ops };
}

/** Milliseconds of all programs of one repetition. */
async function deviceMs(work: Work): Promise<number> {
  let sum = 0;
  await work({ onDeviceMs: (ms) => (sum += ms) });
  return sum;
}

/** Whole sequences without a state, and the logits of their last tokens. */
export function forwardWork(lm: MatMambaLMHeadModel, batch: number, length: number, mrlLevel: number): Work {
  const ids = new Tensor(randomIds(batch * length, lm.vocabSize), [batch, length], 'i32');
  return async (options) => {
    await lm.forward(ids, { mrlLevel, numLastTokens: 1, ...options });
  };
}

/** One token of each of `batch` sequences that are under way. */
export function decodeRow(lm: MatMambaLMHeadModel, name: string, batch: number, mrlLevel: number): Row {
  const state = lm.createState({ batch });
  const ids = new Tensor(randomIds(batch, lm.vocabSize), [batch, 1], 'i32');
  return {
    name: `${name}, B ${batch}, level ${mrlLevel}`,
    dtype: lm.dtype,
    items: batch,
    work: async (options) => {
      await lm.forward(ids, { mrlLevel, state, numLastTokens: 1, ...options });
    },
  };
}

export function randomIds(count: number, vocabSize: number): Int32Array {
  const random = new Random(0, 'gpu bench');
  return Int32Array.from({ length: count }, () => random.uint32() % vocabSize);
}
