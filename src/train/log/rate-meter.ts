/** How fast work goes, over the recent past: a slow first step or a pause for validation is soon forgotten. */

export interface RateMeterOptions {
  /** Length of the recent past, seconds; at least the last few marks always count. */
  readonly windowSeconds?: number;
  /** Now, milliseconds of a clock that does not jump. */
  readonly clock?: () => number;
}

const MARKS_AT_LEAST = 3;

export class RateMeter {
  readonly #windowMs: number;
  readonly #clock: () => number;
  /** Work done between one mark and the next, oldest first. */
  readonly #spans: { amount: number; ms: number }[] = [];
  #last: number;

  constructor(options: RateMeterOptions = {}) {
    this.#windowMs = (options.windowSeconds ?? 60) * 1000;
    this.#clock = options.clock ?? (() => performance.now());
    this.#last = this.#clock();
  }

  /** So much was done since the last call. */
  add(amount: number): void {
    const now = this.#clock();
    this.#spans.push({ amount, ms: now - this.#last });
    this.#last = now;
    let total = this.#spans.reduce((sum, { ms }) => sum + ms, 0);
    while (this.#spans.length > MARKS_AT_LEAST && total - this.#spans[0]!.ms >= this.#windowMs) total -= this.#spans.shift()!.ms;
  }

  /** The time since the last call does not count: it went to other work, such as validation. */
  skip(): void {
    this.#last = this.#clock();
  }

  /** Amount a second; 0 before the first `add`. */
  get perSecond(): number {
    const total = this.#spans.reduce((sum, { amount, ms }) => ({ amount: sum.amount + amount, ms: sum.ms + ms }), {
      amount: 0,
      ms: 0,
    });
    return total.ms > 0 ? (total.amount / total.ms) * 1000 : 0;
  }

  /** Seconds that so much will take; undefined while the rate is not known. */
  secondsFor(amount: number): number | undefined {
    const rate = this.perSecond;
    return rate > 0 ? amount / rate : undefined;
  }
}
