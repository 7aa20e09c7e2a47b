/**
 * The CPU backend: one WASM module with SIMD kernels over one shared memory, a team of workers that walks programs,
 * and a system BLAS for large products where there is one.
 */

import { MatMambaError, throwIfAborted } from '../../errors.ts';
import type { Graph, ParameterSpec } from '../../graph/graph.ts';
import type { CpuWeight, WeightDType } from '../../ops/cpu-kernel.ts';
import {
  type Arena,
  type Backend,
  type Capabilities,
  type DeviceWeight,
  type Program,
  type WeightSource,
  type WeightStorage,
  WEIGHT_DTYPES,
  storageFor,
} from '../backend.ts';
import { type BlasSetting, findBlas } from './blas.ts';
import { HEAP_LIMIT_BYTES, Heap } from './heap.ts';
import { type KernelModule, loadKernelModule } from './module.ts';
import { CpuArena, CpuProgram } from './program.ts';
import { cpuKernels } from './table.ts';
import { Team } from './team.ts';
import { type WeightMemory, packInt8Rows, packRows, storageOf, unpackRows } from './weights.ts';

export interface CpuOptions {
  /** Worker threads; all cores unless given. More than there are cores is slower, not faster. */
  readonly threads?: number;
  readonly blas?: BlasSetting;
}

/** Weights are read and converted in pieces of at most this size. */
const PIECE_BYTES = 16 * 2 ** 20;
const MAXIMUM_SLOTS = 16384;

interface StoredWeight extends DeviceWeight, CpuWeight {
  readonly placed: ReturnType<typeof storageOf>;
}

export class CpuBackend implements Backend {
  readonly name = 'cpu';
  readonly heap: Heap;
  readonly team: Team;
  /** Whether `blas_sgemm` may be called. */
  readonly blas: boolean;
  /** Address of the table from slot to address. */
  readonly slotTable: number;
  readonly #module: KernelModule;
  readonly #blasDescription: string;
  readonly #slots = new Map<number, { pointer: number; bytes: number }>();
  readonly #freeSlots: number[] = [];

  private constructor(heap: Heap, team: Team, module: KernelModule, blas: boolean, blasDescription: string) {
    this.heap = heap;
    this.team = team;
    this.#module = module;
    this.blas = blas;
    this.#blasDescription = blasDescription;
    this.slotTable = heap.allocate(4 * MAXIMUM_SLOTS, 'the slot table');
  }

  /** @throws DEVICE when the engine lacks WASM SIMD or threads, OPTION for a bad thread count */
  static async open(options: CpuOptions = {}): Promise<CpuBackend> {
    const threads = options.threads ?? (await coreCount());
    if (!Number.isInteger(threads) || threads < 1 || threads > 256) {
      throw new MatMambaError('OPTION', `threads must be a whole number from 1 to 256, got ${threads}`);
    }
    const [module, { library, description }] = await Promise.all([loadKernelModule(), findBlas(options.blas ?? 'auto')]);
    const heap = new Heap();
    const team = Team.start(heap, module.module, threads, library);
    return new CpuBackend(heap, team, module, library !== undefined, description);
  }

  capabilities(): Capabilities {
    const unsupported = Object.entries(cpuKernels).flatMap(([op, kernel]) => ('unsupported' in kernel ? [[op, String(kernel.unsupported)]] : []));
    return {
      device: 'cpu',
      threads: this.team.threads,
      simd: this.#module.simd,
      blas: this.#blasDescription,
      memoryLimitBytes: HEAP_LIMIT_BYTES,
      weightDtypes: WEIGHT_DTYPES,
      unsupported: Object.fromEntries(unsupported),
    };
  }

  /** Where a kernel stands in the module's function table. */
  kernelIndex(name: string): number {
    const index = this.#module.kernels.get(name);
    if (index === undefined) throw new MatMambaError('INTERNAL', `the module has no kernel '${name}'`);
    return index;
  }

  async upload(spec: ParameterSpec, storage: WeightStorage, source: WeightSource, signal?: AbortSignal): Promise<DeviceWeight> {
    const stored = storageFor(spec, storage);
    const dtype: WeightDType = stored === 'int8' ? 'i8' : stored;
    const quantised = dtype === 'i8' ? source.quantised : undefined;
    const placed = storageOf(spec, dtype, quantised ? { groupSize: quantised.groupSize } : {});
    const pointer = this.heap.allocate(placed.bytes, spec.name);
    const scales = placed.scaleBytes > 0 ? this.heap.allocate(placed.scaleBytes, spec.name) : 0;
    const weight: StoredWeight = {
      spec,
      storage: stored,
      bytes: placed.bytes + placed.scaleBytes,
      placed,
      dtype,
      layout: spec.layout,
      shape: spec.shape,
      pointer,
      stride: placed.stride,
      scales,
      groupSize: placed.groupSize,
      groups: placed.groups,
    };
    try {
      const piece = Math.max(1, Math.floor(PIECE_BYTES / (4 * placed.columns)));
      for (let first = 0; first < placed.rows; first += piece) {
        throwIfAborted(signal);
        const count = Math.min(piece, placed.rows - first);
        if (quantised) {
          const { values, scales: given } = await quantised.rows(first, count);
          packInt8Rows(placed, this.#memoryOf(weight), first, values, given);
        } else packRows(placed, this.#memoryOf(weight), first, await source.rows(first, count));
      }
    } catch (error) {
      this.release(weight);
      throw error;
    }
    return weight;
  }

  download(weight: DeviceWeight, first: number, count: number): Float32Array {
    const stored = weight as StoredWeight;
    const rows = new Float32Array(count * stored.placed.columns);
    unpackRows(stored.placed, this.#memoryOf(stored), first, rows);
    return rows;
  }

  release(weight: DeviceWeight): void {
    const { pointer, scales } = weight as StoredWeight;
    this.heap.free(pointer);
    if (scales) this.heap.free(scales);
  }

  createArena(): Arena {
    return new CpuArena(this);
  }

  compile(graph: Graph, weights: ReadonlyMap<string, DeviceWeight>, arena: Arena): Program {
    return new CpuProgram(this, graph, weights as ReadonlyMap<string, StoredWeight>, arena as CpuArena);
  }

  createSlot(bytes: number): number {
    const slot = this.#freeSlots.pop() ?? this.#slots.size;
    if (slot >= MAXIMUM_SLOTS) {
      throw new MatMambaError('MEMORY', `all ${MAXIMUM_SLOTS} state slots are taken`, { hint: 'dispose of states that are no longer needed' });
    }
    const pointer = this.heap.allocate(bytes, 'a state');
    this.heap.bytes(pointer, bytes).fill(0);
    this.heap.ints(this.slotTable, MAXIMUM_SLOTS)[slot] = pointer;
    this.#slots.set(slot, { pointer, bytes });
    return slot;
  }

  readSlot(slot: number): Promise<Uint8Array> {
    return this.team.exclusive(() => this.#slotBytes(slot).slice());
  }

  writeSlot(slot: number, bytes: Uint8Array): Promise<void> {
    return this.team.exclusive(() => this.#slotBytes(slot).set(bytes));
  }

  /** Frees the slot once all earlier runs are done. */
  releaseSlot(slot: number): void {
    void this.team.exclusive(() => {
      const held = this.#slots.get(slot);
      if (!held) return;
      this.heap.free(held.pointer);
      this.#slots.delete(slot);
      this.#freeSlots.push(slot);
    });
  }

  async dispose(): Promise<void> {
    await this.team.dispose();
  }

  #slotBytes(slot: number): Uint8Array {
    const held = this.#slots.get(slot);
    if (!held) throw new MatMambaError('DISPOSED', 'this state was disposed');
    return this.heap.bytes(held.pointer, held.bytes);
  }

  #memoryOf({ pointer, scales, placed }: StoredWeight): WeightMemory {
    return { values: this.heap.bytes(pointer, placed.bytes), scales: this.heap.floats(scales, placed.scaleBytes / 4) };
  }
}

async function coreCount(): Promise<number> {
  const { availableParallelism } = await import('node:os');
  return availableParallelism();
}
