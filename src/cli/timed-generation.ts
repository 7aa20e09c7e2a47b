/**
 * A language model as the generation loop wants it, with a clock and a profile: what `lm.generate` does, telling the
 * time of the prompt from that of the tokens after it.
 */

import type { OpProfile } from '../backends/backend.ts';
import type { WidthOptions } from '../elastic/granularity.ts';
import type { MatMambaLMHeadModel } from '../models/language-model.ts';
import type { NextTokenModel } from '../text/index.ts';

export interface GenerationTimes {
  promptTokens: number;
  prefillMs: number;
  /** Tokens that were fed one at a time, and the time from the first of them on. */
  decodedTokens: number;
  decodeMs: number;
}

type Phase = 'prefill' | 'decode';

export interface TimedModel extends NextTokenModel, Disposable {
  readonly times: GenerationTimes;
}

/** `lm` with a fresh state. The first step is the prompt, every later one a token. `onProfile` gets the ops of every run. */
export function timedModel(
  lm: MatMambaLMHeadModel,
  width: WidthOptions,
  onProfile?: (ops: readonly OpProfile[], phase: Phase) => void,
): TimedModel {
  const times: GenerationTimes = { promptTokens: 0, prefillMs: 0, decodedTokens: 0, decodeMs: 0 };
  let phase: Phase = 'prefill';
  let fedAt = NaN;
  const sequence = lm.sequence(width, onProfile && ((ops) => onProfile(ops, phase)));
  /** What feeding so many ids gives, timed. */
  const timed = async <R>(count: number, feed: () => Promise<R>): Promise<R> => {
    const start = performance.now();
    const result = await feed();
    const now = performance.now();
    if (phase === 'prefill') Object.assign(times, { promptTokens: count, prefillMs: now - start });
    else {
      times.decodedTokens += count;
      // With what the sampler took in between: the rate that a reader sees.
      times.decodeMs += now - fedAt;
    }
    phase = 'decode';
    fedAt = now;
    return result;
  };
  const { draw } = sequence;
  return {
    vocabSize: sequence.vocabSize,
    times,
    step: (ids, signal) => timed(ids.length, () => sequence.step(ids, signal)),
    ...(draw ? { draw: (ids, how, signal) => timed(ids.length, () => draw(ids, how, signal)) } : {}),
    [Symbol.dispose]: () => sequence[Symbol.dispose](),
  };
}
