/**
 * Ranks that MPI started. All MPI calls are made by one worker thread (`mpi-worker.js`), in order; only `MPI_Abort` is
 * called from here, because a dying process cannot wait for its worker.
 *
 * Invariants: the worker keeps the process alive only while a call is under way; a process that ends before `finalize`,
 * by whatever way it still notices, takes the whole job with it and names its rank and host. What it cannot notice
 * (SIGKILL, a segmentation fault) the launcher does: Open MPI prints "process rank 1 with PID 71 on node n exited on
 * signal 9" and ends the other ranks.
 */

import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { Worker } from 'node:worker_threads';
import { MatMambaError, messageOf } from '../errors.ts';
import { type Communicator, type Summable, checkRoot, rankName } from './communicator.ts';
import { INSTALL_HINT, type MpiLibrary } from './mpi-library.ts';

interface Failure {
  readonly call: string;
  readonly status: string;
}

/** What the worker is asked, without the number under which it answers. */
type Work =
  | { readonly op: 'sum'; readonly address: bigint; readonly count: number; readonly itemBytes: 4 | 8 }
  | { readonly op: 'broadcast'; readonly address: bigint; readonly byteLength: number; readonly root: number }
  | { readonly op: 'barrier' }
  | { readonly op: 'finalize' };

interface Pending {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  /** Keeps the memory alive while the library works on it. */
  readonly buffer: ArrayBufferView | undefined;
}

export interface MpiOptions {
  /** Longest wait for the other ranks in one call, milliseconds. */
  readonly timeoutMs: number;
  /** Where the last words of a dying rank go; standard error by default. */
  readonly report: (line: string) => void;
}

export class MpiCommunicator implements Communicator {
  readonly rank: number;
  readonly size: number;
  readonly host = hostname();
  readonly #library: MpiLibrary;
  readonly #worker: Worker;
  readonly #report: (line: string) => void;
  readonly #pending = new Map<number, Pending>();
  readonly #addressOf: (view: ArrayBufferView) => bigint;
  #nextId = 0;
  #finalized: Promise<void> | undefined;

  private constructor(
    library: MpiLibrary,
    worker: Worker,
    group: { rank: number; size: number },
    options: MpiOptions,
    addressOf: (view: ArrayBufferView) => bigint,
  ) {
    this.#library = library;
    this.#worker = worker;
    this.#report = options.report;
    this.#addressOf = addressOf;
    this.rank = group.rank;
    this.size = group.size;
    worker.on('message', (answer: { id: number; failure?: Failure }) => this.#settle(answer));
    worker.on('error', (error) => this.abort(`the MPI thread failed: ${messageOf(error)}`));
    worker.unref();
    process.on('uncaughtExceptionMonitor', this.#onUncaught);
    process.on('exit', this.#onExit);
  }

  /** Joins the group that the launcher set up. @throws DEVICE */
  static async join(library: MpiLibrary, options: MpiOptions): Promise<MpiCommunicator> {
    const koffi = (await import('koffi')).default;
    const worker = new Worker(new URL('./mpi-worker.js', import.meta.url), {
      name: 'matmamba-mpi',
      workerData: { path: library.path, family: library.family, timeoutMs: options.timeoutMs },
    });
    const group = await firstWords(worker).catch((error: unknown) => ({
      rank: -1,
      size: 0,
      failure: { call: `loading ${library.path}`, status: messageOf(error) },
    }));
    if (group.failure) {
      await worker.terminate();
      const { call, status } = group.failure;
      throw new MatMambaError('DEVICE', `MPI did not start on host ${hostname()}: ${call}: ${status}`, { hint: INSTALL_HINT });
    }
    return new MpiCommunicator(library, worker, group, options, (view) => koffi.address(view));
  }

  allReduceSum(buffer: Summable): Promise<void> {
    if (buffer.length === 0) return this.barrier();
    const itemBytes = buffer.BYTES_PER_ELEMENT === 8 ? 8 : 4;
    return this.#post({ op: 'sum', address: this.#addressOf(buffer), count: buffer.length, itemBytes }, buffer);
  }

  async broadcast(buffer: ArrayBufferView, root: number): Promise<void> {
    checkRoot(root, this.size);
    if (buffer.byteLength === 0) return this.barrier();
    return this.#post({ op: 'broadcast', address: this.#addressOf(buffer), byteLength: buffer.byteLength, root }, buffer);
  }

  barrier(): Promise<void> {
    return this.#post({ op: 'barrier' });
  }

  abort(reason: string): never {
    this.#die(reason);
    throw new MatMambaError('DEVICE', `${rankName(this)}: ${reason}`);
  }

  finalize(): Promise<void> {
    this.#finalized ??= this.#leave();
    return this.#finalized;
  }

  async #leave(): Promise<void> {
    await this.#send({ op: 'finalize' });
    process.off('uncaughtExceptionMonitor', this.#onUncaught);
    process.off('exit', this.#onExit);
    await this.#worker.terminate();
  }

  async #post(work: Work, buffer?: ArrayBufferView): Promise<void> {
    if (this.#finalized) throw new MatMambaError('DISPOSED', `${rankName(this)} has left the group`);
    return this.#send(work, buffer);
  }

  #send(work: Work, buffer?: ArrayBufferView): Promise<void> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      if (this.#pending.size === 0) this.#worker.ref();
      this.#pending.set(id, { resolve, reject, buffer });
      this.#worker.postMessage({ id, ...work }, []);
    });
  }

  #settle({ id, failure }: { id: number; failure?: Failure }): void {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (this.#pending.size === 0) this.#worker.unref();
    if (!failure) return pending?.resolve();
    pending?.reject(new MatMambaError('DEVICE', `${rankName(this)}: ${failure.call}: ${failure.status}`));
  }

  readonly #onUncaught = (error: unknown): void => {
    const expected = !(error instanceof Error) || error instanceof MatMambaError;
    this.#die(expected ? messageOf(error) : (error.stack ?? error.message));
  };

  readonly #onExit = (code: number): void => {
    this.#die(code === 0 ? 'it ended before the others' : `it ended with exit code ${code}`);
  };

  /** Says who dies and why, then ends all ranks. The library ends this process too, so it normally does not return. */
  #die(reason: string): void {
    process.off('exit', this.#onExit);
    this.#report(`matmamba: ${rankName(this)} ends the job: ${reason}\n`);
    this.#library.abort(1);
  }
}

/** What a worker says once MPI runs, or why it does not. (Not with `removeAllListeners`: Node's own are among them.) */
async function firstWords(worker: Worker): Promise<{ rank: number; size: number; failure?: Failure }> {
  const [words] = (await once(worker, 'message')) as [{ rank: number; size: number; failure?: Failure }];
  return words;
}

/** Writes to standard error before the process is gone; a closed pipe is no reason to stay alive. */
export function reportToStandardError(line: string): void {
  try {
    writeSync(2, line);
  } catch {
    // Nobody reads any more.
  }
}
