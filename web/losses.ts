/** The loss of any mix: as it was measured, or measured here on a short excerpt once the model has nothing else to do. */

import type { EngineLanguageModel } from 'matmamba/browser';
import { EXCERPT, FULL_HEADS, FULL_LOSS, type Heads, dimsOf, guessLoss, measuredLoss, uniform } from './size.ts';

const WINDOW_TOKENS = 256;

export class Losses {
  readonly #model: EngineLanguageModel;
  readonly #onFound: () => void;
  readonly #found = new Map<string, number>();
  #full: number | undefined;
  #running: AbortController | undefined;

  constructor(model: EngineLanguageModel, onFound: () => void) {
    this.#model = model;
    this.#onFound = onFound;
  }

  of(heads: Heads): { readonly loss: number; readonly isMeasured: boolean } {
    const known = measuredLoss(heads) ?? this.#found.get(heads.join());
    return known === undefined ? { loss: guessLoss(heads), isMeasured: false } : { loss: known, isMeasured: true };
  }

  /** Gives way to something more urgent. */
  stop(): void {
    this.#running?.abort();
    this.#running = undefined;
  }

  /** Measures those that are not known. @throws what the engine throws, unless it was stopped */
  async measure(mixes: readonly Heads[]): Promise<void> {
    this.stop();
    const running = new AbortController();
    this.#running = running;
    const { signal } = running;
    const lossOf = (heads: Heads): Promise<number> =>
      this.#model.loss(EXCERPT, WINDOW_TOKENS, { mixnmatchDims: dimsOf(heads, this.#model.info), signal });
    try {
      for (const heads of mixes) {
        if (this.of(heads).isMeasured) continue;
        this.#full ??= await lossOf(uniform(heads.length, FULL_HEADS));
        // The excerpt is easier or harder than all windows together; what a smaller size adds is much the same.
        this.#found.set(heads.join(), FULL_LOSS + (await lossOf(heads)) - this.#full);
        this.#onFound();
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}
