/**
 * Progress of long work on standard error: a bar with rate and time left on a terminal, a plain line every few seconds
 * elsewhere. Work that is done within two seconds shows nothing.
 */

import { formatSeconds } from './text-layout.ts';

const QUIET_MS = 1500;
const REDRAW_MS = 100;
const LINE_MS = 5000;
const BAR_CELLS = 24;
/** The rate is that of the last few seconds, so that a slow start does not spoil it. */
const WINDOW_MS = 8000;

export interface ProgressOptions {
  /** What is being done, as a word: `download`. */
  readonly label: string;
  /** Shows an amount with its unit; a rate is this and `/s`. */
  readonly format: (amount: number) => string;
}

export class Progress {
  readonly #label: string;
  readonly #format: (amount: number) => string;
  readonly #start = performance.now();
  readonly #marks: { ms: number; amount: number }[] = [{ ms: performance.now(), amount: 0 }];
  readonly #terminal = process.stderr.isTTY;
  #shown = -Infinity;
  #drawn = false;

  constructor({ label, format }: ProgressOptions) {
    this.#label = label;
    this.#format = format;
  }

  /** `done` of `total`; cheap to call often. */
  update(done: number, total: number): void {
    const now = performance.now();
    this.#mark(now, done);
    const elapsed = now - this.#start;
    const remaining = total - done;
    const patience = this.#terminal ? QUIET_MS : 2000;
    if (elapsed < patience || now - this.#shown < (this.#terminal ? REDRAW_MS : LINE_MS)) return;
    // What ends in a moment needs no bar.
    const leftMs = 1000 * this.#secondsLeft(remaining);
    if (!this.#drawn && (remaining <= 0 || elapsed + leftMs < 2000 || (!this.#terminal && leftMs < 1000))) return;
    this.#shown = now;
    this.#draw(done, total);
  }

  /** Wipes the bar; call it also when the work failed. */
  end(): void {
    if (this.#drawn && this.#terminal) process.stderr.write('\r\u001B[K');
    this.#drawn = false;
    this.#shown = Infinity;
  }

  #draw(done: number, total: number): void {
    this.#drawn = true;
    const share = total > 0 ? Math.min(1, done / total) : 0;
    const percent = `${Math.floor(share * 100)}%`;
    const rate = `${this.#format(this.#rate())}/s`;
    const left = this.#rate() > 0 ? `${formatSeconds(this.#secondsLeft(total - done))} left` : '';
    const amounts = `${this.#format(done)} of ${this.#format(total)}`;
    if (!this.#terminal) {
      process.stderr.write(`${[`${this.#label}: ${percent}`, amounts, rate, left].filter(Boolean).join(', ')}\n`);
      return;
    }
    const room = (process.stderr.columns || 80) - 3;
    const filled = Math.round(share * BAR_CELLS);
    const bar = '#'.repeat(filled) + '-'.repeat(BAR_CELLS - filled);
    // The narrower the terminal, the less is said.
    const forms = [
      `${this.#label} ${bar} ${percent.padStart(4)}  ${amounts}  ${rate}  ${left}`,
      `${this.#label} ${bar} ${percent.padStart(4)}  ${rate}  ${left}`,
      `${this.#label} ${percent}  ${left}`,
      percent,
    ];
    const form = forms.find((text) => text.length <= room) ?? percent;
    process.stderr.write(`\r${form.trimEnd()}\u001B[K`);
  }

  #mark(ms: number, amount: number): void {
    const last = this.#marks.at(-1)!;
    if (ms - last.ms > REDRAW_MS) this.#marks.push({ ms, amount });
    while (this.#marks.length > 2 && ms - this.#marks[0]!.ms > WINDOW_MS) this.#marks.shift();
  }

  /** Amount a second. */
  #rate(): number {
    const first = this.#marks[0]!;
    const last = this.#marks.at(-1)!;
    return last.ms > first.ms ? (1000 * (last.amount - first.amount)) / (last.ms - first.ms) : 0;
  }

  #secondsLeft(remaining: number): number {
    const rate = this.#rate();
    return rate > 0 ? remaining / rate : Infinity;
  }
}

/** Runs `work` with a progress display that is wiped at its end, whatever the end. */
export async function withProgress<R>(options: ProgressOptions, work: (progress: Progress) => Promise<R>): Promise<R> {
  const progress = new Progress(options);
  try {
    return await work(progress);
  } finally {
    progress.end();
  }
}
