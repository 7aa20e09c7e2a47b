/** The CUDA backend: weights, state slots and programs on one GPU. Everything runs in the order it was asked for. */

import type { RankGroup } from '../../distributed/communicator.ts';
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
  CUDA_DTYPES,
  checkDType,
  quantisedAs,
  storageFor,
} from '../backend.ts';
import type { CudaDriver } from './driver.ts';
import { CudaArena, type CudaHost, CudaProgram } from './program.ts';
import { unsupportedOps } from '../kernel-table.ts';
import { cudaKernels } from './table.ts';
import { CudaStoredWeight, type WeightHost } from './weights.ts';

export interface CudaOptions {
  /** Which GPU, counted from 0 as CUDA_VISIBLE_DEVICES leaves them. */
  readonly index?: number;
}

/** What opens a backend wants to know of it later. */
export interface CudaEvents {
  /** The device failed: nothing will run on this backend any more. */
  readonly onLost?: () => void;
}

const MAXIMUM_SLOTS = 16384;
/** Memory that the driver and its libraries need beside ours. */
const RESERVED_BYTES = 2 ** 30;

/** @throws DEVICE without a GPU or NVIDIA's libraries */
export async function openCuda({ index = 0 }: CudaOptions = {}, events: CudaEvents = {}): Promise<CudaBackend> {
  const { GpuDriver } = await import('./gpu-driver.ts');
  return new CudaBackend(await GpuDriver.open(index), events);
}

export class CudaBackend implements Backend, CudaHost, WeightHost {
  readonly name = 'cuda';
  readonly driver: CudaDriver;
  readonly slotTable: bigint;
  readonly #events: CudaEvents;
  #queue: Promise<unknown> = Promise.resolve();
  #slotCount = 0;
  readonly #freeSlots: number[] = [];
  #group: RankGroup | undefined;
  #lost: string | undefined;
  #disposed = false;

  constructor(driver: CudaDriver, events: CudaEvents = {}) {
    this.driver = driver;
    this.#events = events;
    this.slotTable = driver.allocate(8 * MAXIMUM_SLOTS, 'the slot table');
  }

  capabilities(): Capabilities {
    const { facts } = this.driver;
    return {
      device: 'cuda',
      threads: 0,
      summary: facts.name,
      facts: {
        architecture: facts.architecture,
        multiprocessors: String(facts.multiprocessors),
        libraries: facts.versions,
      },
      memoryLimitBytes: facts.memoryBytes - RESERVED_BYTES,
      dtypes: CUDA_DTYPES,
      programTokens: 65536,
      replaysWhole: true,
      unsupported: unsupportedOps(cudaKernels),
    };
  }

  /** Runs `work` once everything asked for before is done. @throws DEVICE after the device failed */
  exclusive<R>(work: () => R | Promise<R>): Promise<R> {
    const result = this.#queue.then(async () => {
      this.checkOpen();
      try {
        return await work();
      } catch (error) {
        if (error instanceof MatMambaError && error.code === 'DEVICE') this.#loseIfBroken(error);
        throw error;
      }
    });
    this.#queue = result.catch(() => {});
    return result;
  }

  /** @throws DEVICE, DISPOSED when nothing runs here any more */
  checkOpen(): void {
    if (this.#disposed) throw new MatMambaError('DISPOSED', 'this backend was disposed');
    if (this.#lost === undefined) return;
    throw new MatMambaError('DEVICE', `the GPU failed earlier: ${this.#lost}`, { hint: 'load the model again' });
  }

  async upload(spec: ParameterSpec, dtype: ModelDType, source: WeightSource, signal?: AbortSignal): Promise<DeviceWeight> {
    checkDType(dtype, this.capabilities());
    const storage = storageFor(spec, dtype);
    const groupSize = storage === 'int8' ? quantisedAs('int8', source)?.groupSize : undefined;
    const weight = new CudaStoredWeight(this, spec, storage, groupSize);
    try {
      await weight.fill(source, signal);
    } catch (error) {
      weight.release();
      throw error;
    }
    return weight;
  }

  createArena(): Arena {
    return new CudaArena(this);
  }

  compile(graph: Graph, weights: ReadonlyMap<string, DeviceWeight>, arena: Arena, dtype: ModelDType): Program {
    return new CudaProgram(this, graph, weights as ReadonlyMap<string, CudaStoredWeight>, arena as CudaArena, dtype);
  }

  createSlot(bytes: number): StateSlot {
    const index = this.#freeSlots.pop() ?? this.#slotCount;
    if (index >= MAXIMUM_SLOTS) {
      throw new MatMambaError('MEMORY', `all ${MAXIMUM_SLOTS} state slots are taken`, {
        hint: 'dispose of states that are no longer needed',
      });
    }
    const { driver } = this;
    const pointer = driver.allocate(bytes, 'a state');
    if (index === this.#slotCount) this.#slotCount++;
    driver.fillZero(pointer, bytes);
    driver.copyToDevice(this.slotTable + BigInt(8 * index), new Uint8Array(BigUint64Array.of(pointer).buffer));
    let released = false;
    const check = (): void => {
      if (released) throw new MatMambaError('DISPOSED', 'this state was disposed');
    };
    return {
      index,
      read: () =>
        this.exclusive(() => {
          check();
          const copy = new Uint8Array(bytes);
          driver.copyToHost(copy, pointer);
          return copy;
        }),
      write: (given) =>
        this.exclusive(() => {
          check();
          driver.copyToDevice(pointer, given);
        }),
      release: () =>
        void this.exclusive(() => {
          if (released) return;
          released = true;
          driver.free(pointer);
          this.#freeSlots.push(index);
        }).catch(() => {}),
    };
  }

  choices(): Readonly<Record<string, string>> {
    return this.driver.choices();
  }
  adoptChoices(choices: Readonly<Record<string, string>>): void {
    this.driver.adoptChoices(choices);
  }

  /** A group that was joined before is left as it is. */
  joinRanks(group: RankGroup): Promise<void> {
    return this.exclusive(async () => {
      if (this.#group === group) return;
      await this.driver.joinRanks(group);
      this.#group = group;
    });
  }

  settled(): Promise<void> {
    return this.#queue.then(() => {});
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    await this.settled();
    this.#disposed = true;
    this.driver.dispose();
  }

  /** An error on the device ends its context: nothing can run there again. */
  #loseIfBroken(error: MatMambaError): void {
    if (this.driver.works()) return;
    this.#lost = messageOf(error);
    this.#events.onLost?.();
  }
}
