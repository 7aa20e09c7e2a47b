/**
 * A team of one, where memory cannot be shared: this thread instantiates the module itself and walks programs in
 * slices, with a breath between them in which messages and aborts have their turn.
 */

import { MatMambaError, throwIfAborted } from '../../errors.ts';
import { CONTROL, CONTROL_CELLS } from './control.ts';
import type { Heap } from './heap.ts';
import type { Crew } from './team.ts';
import { TurnQueue, turnOfEvents } from './turn-queue.ts';

/** Calls of a program between two looks at the clock. */
const CALLS_PER_SLICE = 4;
/** The longest that programs run without a breath. */
const BREATH_MS = 24;

export class LoneTeam extends TurnQueue implements Crew {
  readonly threads = 1;
  readonly #heap: Heap;
  readonly #control: number;
  readonly #walk: (control: number, thread: number) => void;
  #breathedMs = performance.now();
  #disposed = false;

  private constructor(heap: Heap, control: number, walk: (control: number, thread: number) => void) {
    super();
    this.#heap = heap;
    this.#control = control;
    this.#walk = walk;
  }

  /** `module` takes memory that is not shared. */
  static async start(heap: Heap, module: WebAssembly.Module): Promise<LoneTeam> {
    const never = (): never => {
      throw new Error('a kernel gave up');
    };
    const { exports } = await WebAssembly.instantiate(module, {
      env: {
        memory: heap.memory,
        abort: never,
        now: () => performance.now(),
        // With one thread nobody is waited for.
        sleep: () => {},
        blas_sgemm: never,
        blas_gemm: never,
      },
    });
    const control = heap.allocate(4 * CONTROL_CELLS, 'the control block');
    const cells = heap.ints(control, CONTROL_CELLS);
    cells.fill(0);
    cells[CONTROL.threads] = 1;
    return new LoneTeam(heap, control, exports['walk'] as (control: number, thread: number) => void);
  }

  async run(table: number, count: number, times: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.#disposed) throw new MatMambaError('DEVICE', 'the CPU backend was disposed', { hint: 'load the model again' });
    for (let first = 0; first < count; first += CALLS_PER_SLICE) {
      if (performance.now() - this.#breathedMs > BREATH_MS) {
        await turnOfEvents();
        this.#breathedMs = performance.now();
      }
      throwIfAborted(signal);
      const cells = this.#heap.ints(this.#control, CONTROL_CELLS);
      // An entry of the table is two words, a mark of the clock eight bytes.
      cells[CONTROL.table] = table + 8 * first;
      cells[CONTROL.count] = Math.min(CALLS_PER_SLICE, count - first);
      cells[CONTROL.times] = times === 0 ? 0 : times + 8 * first;
      for (const cell of [CONTROL.finished, CONTROL.arrived, CONTROL.aborted]) cells[cell] = 0;
      try {
        this.#walk(this.#control, 0);
      } catch (cause) {
        const trap = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
        throw new MatMambaError('DEVICE', `CPU kernel failed: ${trap}`, { cause });
      }
    }
  }

  async dispose(): Promise<void> {
    await this.settled();
    this.#disposed = true;
  }
}
