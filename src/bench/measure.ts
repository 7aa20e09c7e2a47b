/** Repeats work and says how long it took: the median and how far repetitions lay apart. */

import { throwIfAborted } from '../errors.ts';

export interface Timing {
  /** Milliseconds of one repetition: the median and the quartiles around it. */
  readonly medianMs: number;
  readonly quartilesMs: readonly [number, number];
  readonly repetitions: number;
}

export interface Repetition {
  readonly least: number;
  readonly most: number;
  /** No further repetition begins after this. */
  readonly budgetMs: number;
}

/**
 * Times `work` after one run that is not counted: it compiles programs and fills caches. Work that returns a number
 * has timed itself, in milliseconds.
 */
export async function measure(
  work: () => Promise<number | void>,
  { least, most, budgetMs }: Repetition,
  signal: AbortSignal,
): Promise<Timing> {
  await work();
  const times: number[] = [];
  const start = performance.now();
  while (times.length < least || (times.length < most && performance.now() - start < budgetMs)) {
    throwIfAborted(signal);
    const before = performance.now();
    const own = await work();
    times.push(own ?? performance.now() - before);
  }
  times.sort((a, b) => a - b);
  return {
    medianMs: quantile(times, 0.5),
    quartilesMs: [quantile(times, 0.25), quantile(times, 0.75)],
    repetitions: times.length,
  };
}

/** Of sorted values, between neighbours where it falls between them. */
function quantile(sorted: readonly number[], share: number): number {
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below]! + (at - below) * (sorted[above]! - sorted[below]!);
}

/** Work a second and its spread: half of the range between the quartiles, relative to the median. */
export function rateOf(
  amount: number,
  { medianMs, quartilesMs: [low, high] }: Timing,
): { readonly perSecond: number; readonly spread: number } {
  return { perSecond: (1000 * amount) / medianMs, spread: (high - low) / 2 / medianMs };
}
