/**
 * The CPU backend: one WASM module with SIMD kernels over one shared memory, a team of workers that walks programs,
 * and a system BLAS for large products where there is one.
 */

import { MatMambaError, throwIfAborted } from '../../errors.ts';
import type { Graph, ParameterSpec } from '../../graph/graph.ts';
import { type CpuWeight, type WeightDType, bufferFloats } from '../../ops/cpu-kernel.ts';
import {
  type Arena,
  type Backend,
  type Capabilities,
  type DeviceWeight,
  type ModelDType,
  type Program,
  type StateSlot,
  type WeightSource,
  type WeightStorage,
  COMMON_DTYPES,
  checkDType,
  quantisedAs,
  storageFor,
} from '../backend.ts';
import { type BlasSetting, findBlas } from './blas.ts';
import { Heap } from './heap.ts';
import { LoneTeam } from './lone-team.ts';
import { type KernelModule, loadKernelModule } from './module.ts';
import { type CpuPlatform, hostPlatform } from './platform.ts';
import { CpuArena, type CpuHost, CpuProgram } from './program.ts';
import { unsupportedOps } from '../kernel-table.ts';
import { cpuKernels } from './table.ts';
import { type Crew, Team } from './team.ts';
import {
  type WeightStorage as PlacedWeight,
  type WeightMemory,
  packInt8Rows,
  packRows,
  readInt8Rows,
  storageOf,
  unpackRows,
} from './weights.ts';
import type { Shape } from '../../tensor/tensor.ts';

export interface CpuOptions {
  /** Worker threads; all cores unless given. More than there are cores is slower, not faster. */
  readonly threads?: number;
  readonly blas?: BlasSetting;
}

/** What opens a backend wants to know of it later. */
export interface CpuEvents {
  /** The workers are gone: nothing will run on this backend any more. */
  readonly onLost?: () => void;
}

/** Weights are read and converted in pieces of at most this size. */
const PIECE_BYTES = 16 * 2 ** 20;
const MAXIMUM_SLOTS = 16384;
/** An upload holds the event loop no longer than about this. */
const BREATH_MS = 50;

export class CpuBackend implements Backend, CpuHost {
  readonly name = 'cpu';
  readonly heap: Heap;
  readonly team: Crew;
  readonly blas: boolean;
  readonly slotTable: number;
  readonly #module: KernelModule;
  readonly #blasDescription: string;
  readonly #alone: string | undefined;
  #slotCount = 0;
  #breathedMs = performance.now();
  readonly #freeSlots: number[] = [];

  private constructor(
    heap: Heap,
    team: Crew,
    module: KernelModule,
    blas: boolean,
    blasDescription: string,
    alone: string | undefined,
  ) {
    this.heap = heap;
    this.team = team;
    this.#module = module;
    this.blas = blas;
    this.#blasDescription = blasDescription;
    this.#alone = alone;
    this.slotTable = heap.allocate(4 * MAXIMUM_SLOTS, 'the slot table');
  }

  /**
   * On `platform`, this machine's own unless given. Where no memory can be shared, one thread does everything, whatever
   * number was asked for.
   * @throws DEVICE when the engine lacks WASM SIMD or threads, OPTION for a bad thread count
   */
  static async open(options: CpuOptions = {}, { onLost }: CpuEvents = {}, platform?: CpuPlatform): Promise<CpuBackend> {
    const host = platform ?? (await hostPlatform());
    const threads = options.threads ?? (await host.defaultThreads());
    if (!Number.isInteger(threads) || threads < 1 || threads > 256) {
      throw new MatMambaError('OPTION', `threads must be a whole number from 1 to 256, got ${threads}`);
    }
    if (host.alone !== undefined) {
      const module = await loadKernelModule(host, false);
      const heap = new Heap({ shared: false });
      const team = await LoneTeam.start(heap, module.module);
      return new CpuBackend(heap, team, module, false, 'off', host.alone);
    }
    const [module, { library, description }] = await Promise.all([
      loadKernelModule(host, true),
      findBlas(options.blas ?? 'auto'),
    ]);
    const heap = new Heap();
    const team = Team.start(host, heap, module.module, threads, library, onLost);
    return new CpuBackend(heap, team, module, library !== undefined, description, undefined);
  }

  capabilities(): Capabilities {
    const { simd } = this.#module;
    return {
      device: 'cpu',
      threads: this.team.threads,
      summary: `${this.team.threads} thread${this.team.threads === 1 ? '' : 's'}`,
      facts: {
        SIMD: simd === 'relaxed' ? 'relaxed (fused multiply-adds)' : `${simd} (this engine has no relaxed SIMD)`,
        BLAS: this.#blasDescription,
        ...(this.#alone === undefined ? {} : { 'one thread': this.#alone }),
      },
      memoryLimitBytes: this.heap.limitBytes,
      dtypes: COMMON_DTYPES,
      programTokens: 4096,
      replaysWhole: false,
      unsupported: unsupportedOps(cpuKernels),
    };
  }

  kernelIndex(name: string): number {
    const index = this.#module.kernels.get(name);
    if (index === undefined) throw new MatMambaError('INTERNAL', `the module has no kernel '${name}'`);
    return index;
  }

  async upload(spec: ParameterSpec, modelDType: ModelDType, source: WeightSource, signal?: AbortSignal): Promise<DeviceWeight> {
    checkDType(modelDType, this.capabilities());
    const stored = storageFor(spec, modelDType);
    const dtype = (stored === 'int8' ? 'i8' : stored) as WeightDType;
    const groupSize = quantisedAs('int8', source)?.groupSize;
    const placed = storageOf(spec, dtype, groupSize === undefined ? {} : { groupSize });
    const pointer = this.heap.allocate(placed.bytes, spec.name);
    const scales = placed.scaleBytes > 0 ? this.heap.allocate(placed.scaleBytes, spec.name) : 0;
    const weight = new StoredWeight(this, spec, stored, placed, pointer, scales);
    try {
      await weight.fill(source, signal);
    } catch (error) {
      weight.release();
      throw error;
    }
    return weight;
  }

  createArena(): Arena {
    return new CpuArena(this);
  }

  compile(graph: Graph, weights: ReadonlyMap<string, DeviceWeight>, arena: Arena): Program {
    return new CpuProgram(this, graph, weights as ReadonlyMap<string, StoredWeight>, arena as CpuArena);
  }

  createSlot(bytes: number): StateSlot {
    const index = this.#freeSlots.pop() ?? this.#slotCount;
    if (index >= MAXIMUM_SLOTS) {
      throw new MatMambaError('MEMORY', `all ${MAXIMUM_SLOTS} state slots are taken`, {
        hint: 'dispose of states that are no longer needed',
      });
    }
    const pointer = this.heap.allocate(bytes, 'a state');
    if (index === this.#slotCount) this.#slotCount++;
    this.heap.bytes(pointer, bytes).fill(0);
    this.heap.ints(this.slotTable, MAXIMUM_SLOTS)[index] = pointer;
    const memory = (): Uint8Array => {
      if (released) throw new MatMambaError('DISPOSED', 'this state was disposed');
      return this.heap.bytes(pointer, bytes);
    };
    let released = false;
    return {
      index,
      read: () => this.team.exclusive(() => memory().slice()),
      write: (given) => this.team.exclusive(() => memory().set(given)),
      release: () =>
        void this.team.exclusive(() => {
          if (released) return;
          released = true;
          this.heap.free(pointer);
          this.#freeSlots.push(index);
        }),
    };
  }

  /** Lets timers and signals of a long upload have their turn. */
  async breathe(): Promise<void> {
    if (performance.now() - this.#breathedMs < BREATH_MS) return;
    await new Promise((resolve) => setTimeout(resolve));
    this.#breathedMs = performance.now();
  }

  choices(): Readonly<Record<string, string>> {
    return {};
  }
  adoptChoices(): void {}

  settled(): Promise<void> {
    return this.team.exclusive(() => {});
  }

  async dispose(): Promise<void> {
    await this.team.dispose();
  }
}

/** A weight in the heap: what kernels read of it, and the way back to float32. */
class StoredWeight implements DeviceWeight, CpuWeight {
  readonly spec: ParameterSpec;
  readonly storage: WeightStorage;
  readonly pointer: number;
  readonly scales: number;
  readonly #backend: CpuBackend;
  readonly #placed: PlacedWeight;
  #released = false;

  constructor(
    backend: CpuBackend,
    spec: ParameterSpec,
    storage: WeightStorage,
    placed: PlacedWeight,
    pointer: number,
    scales: number,
  ) {
    this.#backend = backend;
    this.spec = spec;
    this.storage = storage;
    this.#placed = placed;
    this.pointer = pointer;
    this.scales = scales;
  }

  get dtype(): WeightDType {
    return this.#placed.dtype;
  }
  get layout(): ParameterSpec['layout'] {
    return this.spec.layout;
  }
  get shape(): Shape {
    return this.spec.shape;
  }
  get stride(): number {
    return this.#placed.stride;
  }
  get groupSize(): number {
    return this.#placed.groupSize;
  }
  get bytes(): number {
    return this.#placed.bytes + this.#placed.scaleBytes;
  }

  /** Views of its memory as it is now. @throws DISPOSED */
  get #memory(): WeightMemory {
    if (this.#released) throw new MatMambaError('DISPOSED', `the weight ${this.spec.name} was released`);
    const { bytes, scaleBytes } = this.#placed;
    const { heap } = this.#backend;
    return { values: heap.bytes(this.pointer, bytes), scales: heap.floats(this.scales, scaleBytes / 4) };
  }

  /** Converts and stores all rows, piece by piece. @throws ABORTED, and what the source throws */
  async fill(source: WeightSource, signal?: AbortSignal): Promise<void> {
    const { dtype, rows, columns } = this.#placed;
    const quantised = dtype === 'i8' ? quantisedAs('int8', source) : undefined;
    const piece = Math.max(1, Math.floor(PIECE_BYTES / (4 * columns)));
    for (let first = 0; first < rows; first += piece) {
      await this.#backend.breathe();
      throwIfAborted(signal);
      const count = Math.min(piece, rows - first);
      if (quantised) {
        const { values, scales } = await quantised.rows(first, count);
        packInt8Rows(this.#placed, this.#memory, first, values, scales);
      } else {
        const values = await source.rows(first, count);
        packRows(this.#placed, this.#memory, first, values);
      }
    }
  }

  write(source: WeightSource): Promise<void> {
    return this.#backend.team.exclusive(() => this.fill(source));
  }

  read(first: number, count: number): Float32Array {
    const rows = new Float32Array(count * this.#placed.columns);
    unpackRows(this.#placed, this.#memory, first, rows);
    return rows;
  }

  readInt8(first: number, count: number): { values: Int8Array; scales: Float32Array } {
    return readInt8Rows(this.#placed, this.#memory, first, count);
  }

  hostView(): Float32Array | undefined {
    return this.dtype === 'f32' ? this.#backend.heap.floats(this.pointer, bufferFloats(this)) : undefined;
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#backend.heap.free(this.pointer);
    if (this.scales) this.#backend.heap.free(this.scales);
  }
}
