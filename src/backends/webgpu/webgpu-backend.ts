/** The WebGPU backend: weights, state slots and programs on one device. Everything runs in the order it was asked for. */

import { MatMambaError, messageOf } from '../../errors.ts';
import type { Graph, ParameterSpec } from '../../graph/graph.ts';
import {
  type Arena,
  type Backend,
  type Capabilities,
  type DeviceWeight,
  type ModelDType,
  type Program,
  type StateSlot,
  type WeightSource,
  WEIGHT_DTYPES,
  checkDType,
  quantisedAs,
  storageFor,
} from '../backend.ts';
import { BUFFER_USAGE, type DeviceBuffer, WebGpuDevice, megabytes } from './device.ts';
import { type OpenedGpu, type WebGpuOptions, openGpu } from './gpu.ts';
import { WebGpuArena, type WebGpuHost, WebGpuProgram } from './program.ts';
import { STATE_UNIT_BYTES, StatePool } from './states.ts';
import { unsupportedOps } from '../kernel-table.ts';
import { webGpuKernels } from './table.ts';
import { type WeightHost, WebGpuStoredWeight } from './weights.ts';

/** What opens a backend wants to know of it later. */
export interface WebGpuEvents {
  /** The device was lost: nothing will run on this backend any more. */
  readonly onLost?: () => void;
}

/** So many tokens' activations fit the arena of a model of 1.4 billion parameters; where buffers are small, of 130 million. */
const PROGRAM_TOKENS = 4096;
const LARGE_BUFFER_BYTES = 2 ** 30;
const SMALL_PROGRAM_TOKENS = 512;

/** @throws DEVICE without WebGPU or an adapter */
export async function openWebGpu(options: WebGpuOptions = {}, events: WebGpuEvents = {}): Promise<WebGpuBackend> {
  return new WebGpuBackend(await openGpu(options), events);
}

export class WebGpuBackend implements Backend, WebGpuHost, WeightHost {
  readonly name = 'webgpu';
  readonly device: WebGpuDevice;
  readonly states: StatePool;
  #queue: Promise<unknown> = Promise.resolve();
  #disposed = false;

  constructor(opened: OpenedGpu, { onLost }: WebGpuEvents = {}) {
    this.device = new WebGpuDevice(opened, () => onLost?.());
    this.states = new StatePool(this.device);
  }

  capabilities(): Capabilities {
    const { facts, description, features, bufferLimitBytes } = this.device;
    return {
      device: 'webgpu',
      threads: 0,
      summary: facts.software ? `${description}, on the CPU` : description,
      facts: {
        features: features.join(', ') || 'none beyond the core',
        'largest buffer': megabytes(bufferLimitBytes),
      },
      // WebGPU tells no device's memory; what is too much is refused when it is asked for.
      memoryLimitBytes: Number.MAX_SAFE_INTEGER,
      dtypes: WEIGHT_DTYPES,
      programTokens: bufferLimitBytes >= LARGE_BUFFER_BYTES ? PROGRAM_TOKENS : SMALL_PROGRAM_TOKENS,
      replaysWhole: true,
      unsupported: unsupportedOps(webGpuKernels),
    };
  }

  /** Runs `work` once everything asked for before is done. @throws DEVICE after the device was lost */
  exclusive<R>(work: () => R | Promise<R>): Promise<R> {
    const result = this.#queue.then(async () => {
      this.checkOpen();
      try {
        return await work();
      } catch (error) {
        // What WebGPU itself throws (DOMException of a mapping that was given up, say) gets a code; a lost device says so.
        if (error instanceof MatMambaError && error.code !== 'DEVICE') throw error;
        await this.device.lostOrNot();
        this.checkOpen();
        if (error instanceof MatMambaError) throw error;
        throw new MatMambaError('DEVICE', `WebGPU failed: ${messageOf(error)}`, { cause: error });
      }
    });
    this.#queue = result.catch(() => {});
    return result;
  }

  /** @throws DEVICE, DISPOSED when nothing runs here any more */
  checkOpen(): void {
    if (this.#disposed) throw new MatMambaError('DISPOSED', 'this backend was disposed');
    this.device.check();
  }

  async upload(spec: ParameterSpec, dtype: ModelDType, source: WeightSource, signal?: AbortSignal): Promise<DeviceWeight> {
    checkDType(dtype, this.capabilities());
    this.checkOpen();
    const storage = storageFor(spec, dtype);
    const groupSize = quantisedAs(storage, source)?.groupSize;
    const weight = await WebGpuStoredWeight.allocate(this, spec, storage, groupSize);
    try {
      await weight.fill(source, signal);
    } catch (error) {
      weight.release();
      throw error;
    }
    return weight;
  }

  createArena(): Arena {
    return new WebGpuArena(this);
  }

  compile(graph: Graph, weights: ReadonlyMap<string, DeviceWeight>, arena: Arena, dtype: ModelDType): Program {
    checkDType(dtype, this.capabilities());
    this.checkOpen();
    return new WebGpuProgram(this, graph, weights as ReadonlyMap<string, WebGpuStoredWeight>, arena as WebGpuArena);
  }

  createSlot(bytes: number): StateSlot {
    this.checkOpen();
    const index = this.states.take(bytes);
    const offset = index * STATE_UNIT_BYTES;
    let released = false;
    const check = (): void => {
      if (released) throw new MatMambaError('DISPOSED', 'this state was disposed');
    };
    return {
      index,
      read: () =>
        this.exclusive(() => {
          check();
          return this.readBuffer(this.states.buffer, offset, bytes);
        }),
      write: (given) =>
        this.exclusive(async () => {
          check();
          await this.states.ready();
          this.device.gpu.queue.writeBuffer(this.states.buffer.gpu, offset, given);
        }),
      release: () =>
        void this.exclusive(() => {
          if (released) return;
          released = true;
          this.states.give(index, bytes);
        }).catch(() => {}),
    };
  }

  async readBuffer({ gpu: source }: DeviceBuffer, offset: number, bytes: number): Promise<Uint8Array<ArrayBuffer>> {
    const { gpu } = this.device;
    const size = Math.ceil(bytes / 4) * 4;
    // Copied in the same turn as the caller found the buffer: it may move or be freed afterwards.
    const { buffer, made } = this.device.allocateNow(size, 'a copy', BUFFER_USAGE.mapRead | BUFFER_USAGE.copyTarget);
    const copied = this.device.scoped(() => {
      const encoder = gpu.createCommandEncoder();
      encoder.copyBufferToBuffer(source, offset, buffer.gpu, 0, size);
      gpu.queue.submit([encoder.finish()]);
    });
    try {
      await made;
      const error = await copied;
      if (error) throw new MatMambaError('DEVICE', `WebGPU copied nothing: ${error.message}`);
      await buffer.gpu.mapAsync(1);
      const copy = new Uint8Array(bytes);
      copy.set(new Uint8Array(buffer.gpu.getMappedRange()).subarray(0, bytes));
      buffer.gpu.unmap();
      return copy;
    } finally {
      buffer.free();
    }
  }

  /** Products are not chosen by measuring. */
  choices(): Readonly<Record<string, string>> {
    return {};
  }
  adoptChoices(): void {}

  settled(): Promise<void> {
    return this.#queue.then(() => {});
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    await this.settled();
    this.#disposed = true;
    this.states.free();
    this.device.destroy();
  }
}
