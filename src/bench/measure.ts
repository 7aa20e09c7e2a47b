/** Repeats work and says how long it took: the median and how far repetitions lay apart. */

import { throwIfAborted } from '../errors.ts';

export interface Timing {
  /** Milliseconds of one repetition. */
  readonly medianMs: number;
  readonly leastMs: number;
  readonly mostMs: number;
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
  const middle = times.length >> 1;
  const medianMs = times.length % 2 === 1 ? times[middle]! : (times[middle - 1]! + times[middle]!) / 2;
  return { medianMs, leastMs: times[0]!, mostMs: times.at(-1)!, repetitions: times.length };
}

/** Work a second and its spread: half of the range of the repetitions, relative to the median. */
export function rateOf(
  amount: number,
  { medianMs, leastMs, mostMs }: Timing,
): { readonly perSecond: number; readonly spread: number } {
  return { perSecond: (1000 * amount) / medianMs, spread: (mostMs - leastMs) / 2 / medianMs };
}
