/**
 * The learning rate of every step: a linear warm-up and a cosine down to a floor (Loshchilov & Hutter 2017, eq. 5,
 * without restarts).
 *
 * Two forms are in use. Over the whole run, warm-up and cosine are multiplied, so the rate peaks just below `peak`;
 * after the warm-up, the cosine starts at `peak` where the warm-up ends.
 */

import { MatMambaError, refuseUnknownKeys } from '../errors.ts';

export interface Schedule {
  /** Highest learning rate. */
  readonly peak: number;
  /** Steps of the linear warm-up; 0: none. */
  readonly warmupSteps: number;
  /** Steps of the run. */
  readonly totalSteps: number;
  /** Rate that the cosine ends at, as a share of `peak`; 0 by default. */
  readonly floor?: number;
  /** Where the cosine begins: `start` multiplies it with the warm-up, `warmup` lets it follow the warm-up (default). */
  readonly cosineFrom?: 'start' | 'warmup';
}

/**
 * A schedule that was checked, as a function of the step, counted from 0. From `totalSteps` on the rate stays at the floor.
 * @throws OPTION
 */
export function learningRateSchedule(schedule: Schedule): (step: number) => number {
  refuseUnknownKeys(schedule, ['peak', 'warmupSteps', 'totalSteps', 'floor', 'cosineFrom'], 'schedule');
  const { peak, warmupSteps, totalSteps, floor = 0, cosineFrom = 'warmup' } = schedule;
  const check = (fine: boolean, message: string): void => {
    if (!fine) throw new MatMambaError('OPTION', message);
  };
  check(Number.isFinite(peak) && peak >= 0, `the learning rate must be 0 or more, got ${peak}`);
  check(Number.isInteger(totalSteps) && totalSteps >= 1, `a run has 1 or more steps, got ${totalSteps}`);
  check(
    Number.isInteger(warmupSteps) && warmupSteps >= 0,
    `warm-up steps must be a whole number of 0 or more, got ${warmupSteps}`,
  );
  check(floor >= 0 && floor <= 1, `the floor is a share of the peak from 0 to 1, got ${floor}`);

  const begin = cosineFrom === 'start' ? 0 : warmupSteps;
  return (step) => {
    const warmup = step < warmupSteps ? (step + 1) / warmupSteps : 1;
    const progress = Math.min(1, Math.max(0, (step - begin) / Math.max(1, totalSteps - begin)));
    return peak * warmup * (floor + (1 - floor) * 0.5 * (1 + Math.cos(Math.PI * progress)));
  };
}
