/**
 * The team of worker threads that runs programs: started once, woken by one notification per program, all of it in
 * workers so that the main thread stays free. Programs run one at a time in the order they were asked for.
 */

import { MatMambaError } from '../../errors.ts';
import type { BlasLibrary } from './blas.ts';
import { CONTROL, CONTROL_CELLS } from './control.ts';
import type { Heap } from './heap.ts';

interface TeamWorker {
  ref(): void;
  unref(): void;
  terminate(): Promise<unknown>;
}

export class Team {
  readonly threads: number;
  readonly #heap: Heap;
  readonly #control: number;
  readonly #workers: TeamWorker[] = [];
  readonly #ready: Promise<unknown>;
  readonly #onLost: (() => void) | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #trap: string | undefined;
  #dead: string | undefined;

  private constructor(
    heap: Heap,
    threads: number,
    start: (control: number, thread: number) => Promise<TeamWorker>,
    onLost?: () => void,
  ) {
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
    heap: Heap,
    module: WebAssembly.Module,
    threads: number,
    blas: BlasLibrary | undefined,
    onLost?: () => void,
  ): Team {
    const begin = async (control: number, thread: number): Promise<TeamWorker> => {
      const { Worker } = await import('node:worker_threads');
      const worker = new Worker(new URL('./worker.js', import.meta.url), {
        name: `matmamba-cpu-${thread}`,
        // Flags of the process, such as --input-type, may forbid a worker to start from a file.
        execArgv: [],
        workerData: { module, memory: heap.memory, control, cells: CONTROL, thread, blas: blas ?? null },
      });
      team.#workers.push(worker);
      await new Promise<void>((resolve, reject) => {
        worker.on('message', (message: { ready?: number; trap?: string }) => {
          if (message.trap) team.#trap ??= message.trap;
          else resolve();
        });
        const end = (reason: string, cause?: Error): void => {
          team.#fail(reason);
          reject(new MatMambaError('DEVICE', reason, { cause }));
        };
        worker.on('error', (cause: Error) => end(`a worker thread failed: ${cause.message}`, cause));
        worker.once('exit', (code) => end(`a worker thread ended with exit code ${code}`));
      });
      worker.unref();
      return worker;
    };
    const team: Team = new Team(heap, threads, begin, onLost);
    return team;
  }

  get #cells(): Int32Array {
    return this.#heap.ints(this.#control, CONTROL_CELLS);
  }

  /** Runs `task` when everything asked for before is done; nothing else runs meanwhile. */
  exclusive<R>(task: () => Promise<R> | R): Promise<R> {
    const result = this.#queue.then(task);
    this.#queue = result.catch(() => {});
    return result;
  }

  /**
   * Runs one table of calls; must be called inside `exclusive`.
   * @throws ABORTED when the signal fires (state slots may be half updated), DEVICE when a kernel traps
   */
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
        const wait = Atomics.waitAsync(cells, CONTROL.done, done, 1000);
        if (wait.async) await wait.value;
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
    await this.#queue;
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
