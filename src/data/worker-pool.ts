/**
 * Worker threads that run tasks; with none, tasks run on this thread.
 *
 * Invariants: a task's promise always settles, also when its worker dies; `close` leaves no thread behind.
 */

import type { MessagePort, TransferListItem, Worker } from 'node:worker_threads';
import { ERROR_CODES, type ErrorCode, MatMambaError, messageOf } from '../errors.ts';
import { type RunnerOptions, type TaskResult, TaskRunner } from './task-runner.ts';
import type { Work } from './tasks.ts';

type Request = { readonly kind: 'run'; readonly work: Work } | { readonly kind: 'counts' } | { readonly kind: 'engine' };
type Response = { readonly ok: unknown } | { readonly code: string; readonly message: string; readonly hint: string | undefined };

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

interface Member {
  readonly worker: Worker;
  /** In the order in which they were sent, which is that of the answers. */
  readonly pending: Pending[];
}

export class WorkerPool implements AsyncDisposable {
  readonly size: number;
  readonly #members: Member[] = [];
  readonly #runner: TaskRunner;
  #chain: Promise<unknown> = Promise.resolve();
  #lost: MatMambaError | undefined;
  #closed = false;

  private constructor(size: number, options: RunnerOptions) {
    this.size = size;
    this.#runner = new TaskRunner(options);
  }

  /** Starts `size` threads. */
  static async start(size: number, options: RunnerOptions): Promise<WorkerPool> {
    // From TypeScript sources there is no worker to start: the tests of this folder run on one thread.
    const pool = new WorkerPool(import.meta.url.endsWith('.ts') ? 0 : size, options);
    if (pool.size === 0) return pool;
    const { Worker } = await import('node:worker_threads');
    for (let i = 0; i < pool.size; i++) pool.#add(new Worker(new URL('./worker.js', import.meta.url), { workerData: options }));
    return pool;
  }

  #add(worker: Worker): void {
    const member: Member = { worker, pending: [] };
    const lose = (why: string): void => {
      if (this.#closed) return;
      const hint = 'it may have run out of memory: try fewer --workers';
      this.#lost ??= new MatMambaError('INTERNAL', `a worker thread of the tokenizer ended: ${why}`, { hint });
      for (const { reject } of member.pending.splice(0)) reject(this.#lost);
    };
    worker.on('message', (response: Response) => {
      const pending = member.pending.shift();
      if ('ok' in response) pending?.resolve(response.ok);
      else pending?.reject(errorFrom(response));
    });
    worker.on('error', (error) => lose(messageOf(error)));
    worker.on('exit', (status) => lose(`exit status ${status}`));
    this.#members.push(member);
  }

  /** Runs a task; its bytes move to the worker. @throws what the task throws; INTERNAL when the worker was lost */
  run(work: Work): Promise<TaskResult> {
    const least = this.#members.reduce<Member | undefined>(
      (best, member) => (best && best.pending.length <= member.pending.length ? best : member),
      undefined,
    );
    return this.#send(least, { kind: 'run', work }) as Promise<TaskResult>;
  }

  /** What encodes. @throws FORMAT, TOKEN when the tokenizer cannot be used */
  engine(): Promise<string> {
    return this.#send(this.#members[0], { kind: 'engine' }) as Promise<string>;
  }

  /** The counts of words of all threads. */
  async takeCounts(): Promise<Map<string, number>> {
    const members = this.#members.length > 0 ? this.#members : [undefined];
    const sum = new Map<string, number>();
    for (const member of members) {
      const counts = (await this.#send(member, { kind: 'counts' })) as Map<string, number>;
      for (const [word, count] of counts) sum.set(word, (sum.get(word) ?? 0) + count);
    }
    return sum;
  }

  #send(member: Member | undefined, request: Request): Promise<unknown> {
    if (!member) {
      // One task at a time, as in a worker.
      const answer = this.#chain.then(() => answerTo(this.#runner, request));
      this.#chain = answer.catch(() => undefined);
      return answer;
    }
    if (this.#lost) return Promise.reject(this.#lost);
    return new Promise((resolve, reject) => {
      member.pending.push({ resolve, reject });
      member.worker.postMessage(request, bytesOf(request));
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    const stopped = new MatMambaError('ABORTED', 'the workers were stopped');
    for (const { pending } of this.#members) for (const { reject } of pending.splice(0)) reject(stopped);
    await Promise.all(this.#members.map(({ worker }) => worker.terminate()));
    await this.#chain;
    await this.#runner.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Answers requests that come through a port, one after the other: the body of a worker. */
export function serve(port: MessagePort, options: RunnerOptions): void {
  const runner = new TaskRunner(options);
  const answer = async (request: Request): Promise<void> => {
    try {
      const ok = await answerTo(runner, request);
      port.postMessage({ ok } satisfies Response, request.kind === 'run' ? [(ok as TaskResult).ids.buffer as ArrayBuffer] : []);
    } catch (error) {
      const known = error instanceof MatMambaError ? error : undefined;
      const message = known?.hint ? known.message.slice(0, -known.hint.length).trimEnd() : messageOf(error);
      port.postMessage({ code: known?.code ?? 'INTERNAL', message, hint: known?.hint } satisfies Response);
    }
  };
  let last: Promise<void> = Promise.resolve();
  port.on('message', (request: Request) => {
    const before = last;
    last = (async (): Promise<void> => {
      await before;
      await answer(request);
    })();
  });
}

async function answerTo(runner: TaskRunner, request: Request): Promise<unknown> {
  if (request.kind === 'run') return runner.run(request.work);
  return request.kind === 'counts' ? runner.takeCounts() : runner.engine();
}

function bytesOf(request: Request): TransferListItem[] {
  return request.kind === 'run' && 'bytes' in request.work ? [request.work.bytes.buffer as ArrayBuffer] : [];
}

function errorFrom({ code, message, hint }: Exclude<Response, { ok: unknown }>): MatMambaError {
  const known = ERROR_CODES.includes(code as ErrorCode) ? (code as ErrorCode) : 'INTERNAL';
  return new MatMambaError(known, message, hint === undefined ? {} : { hint });
}
