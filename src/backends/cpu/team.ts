/**
 * The team of worker threads that runs programs: started once, woken by one notification per program, all of it in
 * workers so that the main thread stays free. Programs run one at a time in the order they were asked for.
 */

import { MatMambaError, messageOf } from '../../errors.ts';
import type { BlasLibrary } from './blas.ts';
import { CONTROL, CONTROL_CELLS } from './control.ts';
import type { Heap } from './heap.ts';
import type { CpuPlatform, TeamWorker } from './platform.ts';
import { TurnQueue, turnOfEvents } from './turn-queue.ts';

/** What runs programs: workers over one shared memory, or the calling thread by itself (lone-team.ts). */
export interface Crew {
  readonly threads: number;
  /** Runs `task` when everything asked for before is done; nothing else runs meanwhile. */
  exclusive<R>(task: () => Promise<R> | R): Promise<R>;
  /**
   * Runs one table of calls; must be called inside `exclusive`.
   * @throws ABORTED when the signal fires (state slots may be half updated), DEVICE when a kernel traps
   */
  run(table: number, count: number, times: number, signal: AbortSignal | undefined): Promise<void>;
  dispose(): Promise<void>;
}

export class Team extends TurnQueue implements Crew {
  readonly threads: number;
  readonly #heap: Heap;
  readonly #control: number;
  readonly #workers: TeamWorker[] = [];
  readonly #ready: Promise<unknown>;
  readonly #onLost: (() => void) | undefined;
  readonly #blockMs: number;
  #waiting = 0;
  #trap: string | undefined;
  #dead: string | undefined;

  private constructor(
    heap: Heap,
    threads: number,
    blockMs: number,
    start: (control: number, thread: number) => Promise<void>,
    onLost?: () => void,
  ) {
    super();
    this.#blockMs = blockMs;
    this.#heap = heap;
    this.#onLost = onLost;
    this.threads = threads;
    this.#control = heap.allocate(4 * CONTROL_CELLS, 'the control block');
    heap.ints(this.#control, CONTROL_CELLS).fill(0);
    this.#cells[CONTROL.threads] = threads;
    this.#ready = Promise.all(Array.from({ length: threads }, (_, thread) => start(this.#control, thread)));
    this.#ready.catch(() => {});
  }

  /** Starts `threads` workers over the heap's memory; they are awaited by the first run. */
  static start(
    platform: CpuPlatform,
    heap: Heap,
    module: WebAssembly.Module,
    threads: number,
    blas: BlasLibrary | undefined,
    onLost?: () => void,
  ): Team {
    const begin = async (control: number, thread: number): Promise<void> => {
      const start = { module, memory: heap.memory, control, cells: CONTROL, thread, blas: blas ?? null };
      const worker = await new Promise<TeamWorker>((resolve, reject) => {
        let started: TeamWorker | undefined;
        let isReady = false;
        const onMessage = (message: { ready?: number; trap?: string }): void => {
          if (message.trap) team.#trap ??= message.trap;
          else isReady = true;
          if (isReady && started) resolve(started);
        };
        const onEnd = (reason: string, cause?: Error): void => {
          team.#fail(reason);
          reject(new MatMambaError('DEVICE', reason, { cause }));
        };
        platform.startWorker(start, { onMessage, onEnd }).then(
          (worker) => {
            started = worker;
            team.#workers.push(worker);
            if (team.#dead) void worker.terminate();
            if (isReady) resolve(worker);
          },
          (error: unknown) => onEnd(`a worker cannot be started: ${messageOf(error)}`, error as Error),
        );
      });
      worker.unref();
    };
    const team: Team = new Team(heap, threads, platform.blockMs, begin, onLost);
    return team;
  }

  get #cells(): Int32Array {
    return this.#heap.ints(this.#control, CONTROL_CELLS);
  }

  async run(table: number, count: number, times: number, signal: AbortSignal | undefined): Promise<void> {
    await this.#ready;
    if (this.#dead) throw new MatMambaError('DEVICE', this.#dead, { hint: 'load the model again' });
    const cells = this.#cells;
    cells[CONTROL.table] = table;
    cells[CONTROL.count] = count;
    cells[CONTROL.times] = times;
    for (const cell of [CONTROL.finished, CONTROL.arrived, CONTROL.aborted]) cells[cell] = 0;
    this.#trap = undefined;
    const done = Atomics.load(cells, CONTROL.done);
    const stop = (): void => void Atomics.store(cells, CONTROL.aborted, 1);
    signal?.addEventListener('abort', stop);
    this.#hold(1);
    try {
      Atomics.add(cells, CONTROL.sequence, 1);
      Atomics.notify(cells, CONTROL.sequence);
      while (Atomics.load(cells, CONTROL.done) === done) {
        await untilChanged(cells, CONTROL.done, done, this.#blockMs);
        if (this.#dead) break;
      }
    } finally {
      this.#hold(-1);
      signal?.removeEventListener('abort', stop);
    }
    if (this.#dead) throw new MatMambaError('DEVICE', this.#dead, { hint: 'load the model again' });
    if (cells[CONTROL.aborted] === 0) return;
    if (signal?.aborted) throw new MatMambaError('ABORTED', 'stopped by the caller', { cause: signal.reason });
    for (let tries = 0; tries < 100 && this.#trap === undefined; tries++) await new Promise((resolve) => setTimeout(resolve, 2));
    const trap = this.#trap ?? 'a kernel failed without a message';
    throw new MatMambaError('DEVICE', `CPU kernel failed: ${trap}`);
  }

  async dispose(): Promise<void> {
    await this.#ready.catch(() => {});
    await this.settled();
    this.#dead ??= 'the CPU backend was disposed';
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  /** A worker is gone, and with it the barrier: ends the others and whoever waits for them. */
  #fail(reason: string): void {
    if (this.#dead) return;
    this.#dead = reason;
    for (const worker of this.#workers) void worker.terminate();
    Atomics.add(this.#cells, CONTROL.done, 1);
    Atomics.notify(this.#cells, CONTROL.done);
    this.#onLost?.();
  }

  /** Keeps the process alive while programs run, and lets it end while none does. */
  #hold(change: 1 | -1): void {
    this.#waiting += change;
    if (change === 1 && this.#waiting === 1) this.#workers[0]?.ref();
    if (this.#waiting === 0) this.#workers[0]?.unref();
  }
}

/** Resolves when the cell no longer holds `value`, or after a while. This thread is blocked for `blockMs` at most. */
async function untilChanged(cells: Int32Array, cell: number, value: number, blockMs: number): Promise<void> {
  if (blockMs > 0) Atomics.wait(cells, cell, value, blockMs);
  if (!Atomics.waitAsync) {
    await turnOfEvents();
    return;
  }
  const wait = Atomics.waitAsync(cells, cell, value, 1000);
  if (wait.async) await wait.value;
}
