/**
 * A language model as the generation loop wants it, with a clock and a profile: what `lm.generate` does, telling the
 * time of the prompt from that of the tokens after it.
 */

import type { OpProfile } from '../backends/backend.ts';
import type { WidthOptions } from '../elastic/granularity.ts';
import type { MatMambaLMHeadModel } from '../models/language-model.ts';
import { prefillChunks } from '../models/prefill.ts';
import { tensor } from '../tensor/tensor.ts';
import type { NextTokenModel } from '../text/index.ts';

export interface GenerationTimes {
  promptTokens: number;
  prefillMs: number;
  /** Tokens that were fed one at a time, and the time from the first of them on. */
  decodedTokens: number;
  decodeMs: number;
}

export interface TimedModel extends NextTokenModel, Disposable {
  readonly times: GenerationTimes;
  /** Called with the profile of every run, when there is someone to listen. */
  onProfile: ((ops: readonly OpProfile[], phase: 'prefill' | 'decode') => void) | undefined;
}

/** `lm` with a fresh state. The first step is the prompt, every later one a token. */
export function timedModel(lm: MatMambaLMHeadModel, width: WidthOptions): TimedModel {
  const state = lm.createState();
  const times: GenerationTimes = { promptTokens: 0, prefillMs: 0, decodedTokens: 0, decodeMs: 0 };
  let fedAt = NaN;
  const model: TimedModel = {
    vocabSize: lm.vocabSize,
    times,
    onProfile: undefined,
    async step(ids, signal) {
      const phase = Number.isNaN(fedAt) ? 'prefill' : 'decode';
      const start = performance.now();
      let logits: Float32Array | undefined;
      let fed = 0;
      for (const size of prefillChunks(ids.length)) {
        const piece = new Int32Array(size);
        const count = Math.min(size, ids.length - fed);
        piece.set(ids.subarray(fed, fed + count));
        fed += count;
        const { onProfile } = model;
        const result = await lm.forward(tensor(piece, [1, size]), {
          ...width,
          state,
          signal,
          lengths: [count],
          numLastTokens: 1,
          ...(onProfile ? { onProfile: (ops) => onProfile(ops, phase) } : {}),
        });
        logits = result.logits.array as Float32Array;
      }
      const now = performance.now();
      if (phase === 'prefill') Object.assign(times, { promptTokens: ids.length, prefillMs: now - start });
      else {
        times.decodedTokens += ids.length;
        // With what the sampler took in between: the rate that a reader sees.
        times.decodeMs += now - fedAt;
      }
      fedAt = now;
      return logits!;
    },
    [Symbol.dispose]() {
      state.dispose();
    },
  };
  return model;
}
