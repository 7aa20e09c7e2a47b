/**
 * The control block that the main thread and the team share: 32-bit cells, in the order of `Control` in
 * `kernels.as.ts`. Only `worker.js` and `team.ts` touch it.
 */
export const CONTROL = {
  /** Number of the program to run; workers wait for it to change, a negative one ends them. */
  sequence: 0,
  table: 1,
  count: 2,
  finished: 3,
  arrived: 4,
  generation: 5,
  aborted: 6,
  threads: 7,
  /** Address of f64 cells for the start and then the end of each call, in ms, or 0. */
  times: 8,
  /** Counts finished programs; the main thread waits for it to change. */
  done: 9,
} as const;

export const CONTROL_CELLS = 10;
