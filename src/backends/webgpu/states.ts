/**
 * The pool of state slots: one buffer that grows, slots in it in units of 256 bytes. A slot's index is where it begins in
 * such units, so kernels need no table. Growing copies the slots; `epoch` tells programs to bind the new buffer.
 */

import { STATE_UNIT_FLOATS } from '../../ops/webgpu-kernel.ts';
import type { DeviceBuffer, WebGpuDevice } from './device.ts';

export const STATE_UNIT_BYTES = 4 * STATE_UNIT_FLOATS;
const FIRST_UNITS = 16;

export class StatePool {
  readonly #device: WebGpuDevice;
  /** Free runs in units, by where they begin, in order. */
  #free: { first: number; count: number }[] = [];
  #units = 0;
  #buffer: DeviceBuffer;
  /** Whether the device had room for what the pool grew to. */
  #made: Promise<void>;
  epoch = 0;

  constructor(device: WebGpuDevice) {
    this.#device = device;
    const { buffer, made } = device.allocateNow(FIRST_UNITS * STATE_UNIT_BYTES, 'states');
    made.catch(() => {});
    this.#buffer = buffer;
    this.#made = made;
    this.#extend(FIRST_UNITS);
  }

  get buffer(): DeviceBuffer {
    return this.#buffer;
  }

  /** @throws MEMORY when the device had no room for the states that were made */
  ready(): Promise<void> {
    return this.#made;
  }

  /** Takes zeroed units; returns the first. @throws MEMORY */
  take(bytes: number): number {
    const count = Math.max(1, Math.ceil(bytes / STATE_UNIT_BYTES));
    let run = this.#smallest(count);
    if (!run) {
      this.#grow(count);
      run = this.#smallest(count)!;
    }
    const { first } = run;
    run.first += count;
    run.count -= count;
    if (run.count === 0) this.#free.splice(this.#free.indexOf(run), 1);
    // Fails only where the pool has no memory, which `ready` tells.
    const cleared = this.#device.scoped(() => {
      const encoder = this.#device.gpu.createCommandEncoder();
      encoder.clearBuffer(this.#buffer.gpu, first * STATE_UNIT_BYTES, count * STATE_UNIT_BYTES);
      this.#device.gpu.queue.submit([encoder.finish()]);
    });
    cleared.catch(() => {});
    return first;
  }

  give(first: number, bytes: number): void {
    const count = Math.max(1, Math.ceil(bytes / STATE_UNIT_BYTES));
    let at = this.#free.findIndex((run) => run.first > first);
    if (at < 0) at = this.#free.length;
    this.#free.splice(at, 0, { first, count });
    for (const i of [at, at - 1]) {
      const run = this.#free[i];
      const next = this.#free[i + 1];
      if (run && next && run.first + run.count === next.first) {
        run.count += next.count;
        this.#free.splice(i + 1, 1);
      }
    }
  }

  free(): void {
    this.#buffer.free();
  }

  #smallest(count: number): { first: number; count: number } | undefined {
    let best: { first: number; count: number } | undefined;
    for (const run of this.#free) if (run.count >= count && (!best || run.count < best.count)) best = run;
    return best;
  }

  #extend(units: number): void {
    const first = this.#units;
    this.#units = units;
    this.give(first, (units - first) * STATE_UNIT_BYTES);
  }

  /** Room for `count` more units: twice the pool where the device allows it. */
  #grow(count: number): void {
    const last = this.#free.at(-1);
    const open = last && last.first + last.count === this.#units ? last.count : 0;
    const least = this.#units + count - open;
    const most = Math.floor(this.#device.bufferLimitBytes / STATE_UNIT_BYTES);
    if (least > most) {
      this.#device.checkSize(least * STATE_UNIT_BYTES, 'states', 'dispose of states that are no longer needed');
    }
    const units = Math.min(most, Math.max(least, 2 * this.#units));
    const old = this.#buffer;
    const { buffer, made } = this.#device.allocateNow(units * STATE_UNIT_BYTES, 'states');
    const copied = this.#device.scoped(() => {
      const encoder = this.#device.gpu.createCommandEncoder();
      encoder.copyBufferToBuffer(old.gpu, 0, buffer.gpu, 0, this.#units * STATE_UNIT_BYTES);
      this.#device.gpu.queue.submit([encoder.finish()]);
    });
    const earlier = this.#made;
    this.#made = (async () => {
      await Promise.all([earlier, made, copied]);
    })();
    this.#made.catch(() => {});
    old.free();
    this.#buffer = buffer;
    this.epoch++;
    this.#extend(units);
  }
}
