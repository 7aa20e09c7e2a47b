/**
 * The carried state of a batch of sequences: per sequence one slot of fixed size with every layer's convolution window
 * and S, however long the text was.
 */

import type { Backend, StateSlot } from '../backends/backend.ts';
import { MatMambaError } from '../errors.ts';

/** A copy of a state's content, in host memory; it outlives the state and the model. */
export interface StateSnapshot {
  readonly batch: number;
  /** One entry per sequence, all of the model's slot size. */
  readonly slots: readonly Uint8Array[];
}

export class ModelState implements AsyncDisposable {
  readonly batch: number;
  /** Bytes of one sequence's slot. */
  readonly slotBytes: number;
  readonly #owner: object;
  readonly #slots: StateSlot[] = [];
  #disposed = false;

  constructor(owner: object, backend: Backend, batch: number, slotBytes: number) {
    if (!Number.isInteger(batch) || batch < 1) {
      throw new MatMambaError('OPTION', `a state's batch is a whole number of at least 1, got ${batch}`);
    }
    this.#owner = owner;
    this.batch = batch;
    this.slotBytes = slotBytes;
    try {
      for (let i = 0; i < batch; i++) this.#slots.push(backend.createSlot(slotBytes));
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** Bytes of the whole state. */
  get byteLength(): number {
    return this.batch * this.slotBytes;
  }

  /** Slot indices for a program of `owner` and `batch` sequences. @throws DISPOSED, SHAPE */
  slotsFor(owner: object, batch: number): Int32Array {
    this.#check();
    if (owner !== this.#owner)
      throw new MatMambaError('OPTION', 'this state belongs to another model', { hint: 'make one with createState()' });
    if (batch !== this.batch) throw new MatMambaError('SHAPE', `state: expected a batch of ${this.batch}, got ${batch}`);
    return Int32Array.from(this.#slots, ({ index }) => index);
  }

  /** Copies the content after all runs asked for so far. @throws DISPOSED */
  async snapshot(): Promise<StateSnapshot> {
    this.#check();
    return { batch: this.batch, slots: await Promise.all(this.#slots.map((slot) => slot.read())) };
  }

  /** Goes back to a snapshot, before any run that is asked for later. @throws DISPOSED, SHAPE */
  async restore(snapshot: StateSnapshot | Promise<StateSnapshot>): Promise<void> {
    this.#check();
    const { slots } = snapshot instanceof Promise ? await snapshot : snapshot;
    if (slots.length !== this.batch || slots.some(({ byteLength }) => byteLength !== this.slotBytes)) {
      throw new MatMambaError(
        'SHAPE',
        `snapshot: expected ${this.batch} slots of ${this.slotBytes} bytes, got ${slots.length} of ${slots[0]?.byteLength ?? 0}`,
      );
    }
    await Promise.all(this.#slots.map((slot, i) => slot.write(slots[i]!)));
  }

  /** Back to the start of a text. @throws DISPOSED */
  async reset(): Promise<void> {
    await this.restore({ batch: this.batch, slots: this.#slots.map(() => new Uint8Array(this.slotBytes)) });
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const slot of this.#slots) slot.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose();
  }

  #check(): void {
    if (this.#disposed) throw new MatMambaError('DISPOSED', 'this state was disposed');
  }
}
