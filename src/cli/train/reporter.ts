/** What a training run tells: progress on standard error, a line every few seconds; results on standard output. */

import { formatDuration, formatProgress } from '../../train/log/progress.ts';
import { RateMeter } from '../../train/log/rate-meter.ts';
import type { RecipeOptions } from '../../train/run.ts';
import type { StepRecord } from '../../train/trainer.ts';
import type { Io } from '../io.ts';

const SHOW_EVERY_MS = 5000;

export class Reporter {
  readonly #io: Io;
  readonly #asJson: boolean;
  readonly #unit: 'tokens' | 'images';
  readonly #total: number;
  readonly #perStep: number;
  readonly #meter = new RateMeter();
  readonly #started = performance.now();
  #shown = -Infinity;

  /** @param perRow units in a row of a batch: tokens of a sequence, 1 for an image */
  constructor(recipe: RecipeOptions, unit: 'tokens' | 'images', perRow: number, asJson: boolean, io: Io) {
    this.#io = io;
    this.#asJson = asJson;
    this.#unit = unit;
    this.#total = recipe.schedule.totalSteps;
    const levels = (recipe.strategy.levels?.length ?? 4) + (recipe.strategy.mixes ?? 0);
    this.#perStep = recipe.batch * levels * perRow;
  }

  step(record: StepRecord): void {
    this.#meter.add(this.#perStep);
    if (this.#asJson) this.#io.json(record);
    const now = performance.now();
    if (this.#asJson || (now - this.#shown < SHOW_EVERY_MS && record.step !== this.#total)) return;
    this.#shown = now;
    const perSecond = this.#meter.perSecond;
    const secondsLeft = perSecond > 0 ? ((this.#total - record.step) * this.#perStep) / perSecond : undefined;
    this.#io.note(formatProgress({ ...record, totalSteps: this.#total, perSecond, unit: this.#unit, secondsLeft }));
  }

  /** @param accuracy share of right answers by label */
  validation(step: number, losses: Readonly<Record<string, number>>, accuracy?: Readonly<Record<string, number>>): void {
    this.#meter.skip();
    if (this.#asJson) {
      this.#io.json({ step, validation: losses, ...(accuracy && { accuracy }) });
      return;
    }
    const parts = Object.entries(losses).map(([label, loss]) => {
      const right = accuracy?.[label];
      return `${label}: ${loss.toFixed(4)}${right === undefined ? '' : ` (${(100 * right).toFixed(1)}% right)`}`;
    });
    this.#io.note(`step ${step}   held out ${parts.join('  ')}`);
  }

  end(folder: string, bestLoss: number): void {
    const seconds = (performance.now() - this.#started) / 1000;
    const best = Number.isFinite(bestLoss) ? bestLoss : undefined;
    if (this.#asJson) this.#io.json({ folder, bestLoss: best, seconds });
    else
      this.#io.line(
        `${folder}: trained in ${formatDuration(seconds)}${best === undefined ? '' : `, best held-out loss ${best.toFixed(4)}`}`,
      );
  }
}
