/**
 * What every model runs on: its weights on a backend, one arena, and a cache of programs by (what, widths, batch,
 * length). The cache is bounded by bytes and drops what was used longest ago.
 */

import {
  type Arena,
  type Backend,
  type DeviceWeight,
  type ModelDType,
  type OpProfile,
  type Program,
  type ProgramInputs,
  type WeightSource,
  MODEL_DTYPES,
  checkDType,
  storageFor,
} from '../backends/backend.ts';
import { type DeviceOptions, acquireBackend } from '../backends/open.ts';
import { MatMambaError, nearestWord } from '../errors.ts';
import { Graph, type ParameterSpec } from '../graph/graph.ts';
import { sizeOf } from '../tensor/tensor.ts';
import { type ElasticTrace, withFittingWidths } from './fitting.ts';
import type { ParameterDeclaration } from './parameters.ts';

/** Where and how a model is held. */
export interface ModelOptions extends DeviceOptions {
  /**
   * `f32` (default), or the storage of matrices: `bf16`, `f16`, `int8`, on WebGPU `int4`; on a GPU with CUDA also `tf32` and `bf16-mixed`. Norms,
   * states and the residual stream are float32 in all of them.
   */
  readonly dtype?: ModelDType | undefined;
  /** Stops loading. */
  readonly signal?: AbortSignal | undefined;
  /** Told of things that are odd but not wrong, such as unknown fields of a config file. */
  readonly onWarning?: ((message: string) => void) | undefined;
}
export const MODEL_OPTION_KEYS = [
  'device',
  'index',
  'webgpuFeatures',
  'dtype',
  'threads',
  'blas',
  'signal',
  'onWarning',
] as const;

/** Options that every run takes. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Receives time, operations and bytes of every op after the run. */
  readonly onProfile?: ((ops: readonly OpProfile[]) => void) | undefined;
  /** Receives the milliseconds that the run took on a GPU, without copies from and to the host. */
  readonly onDeviceMs?: ((ms: number) => void) | undefined;
}
export const CALL_OPTION_KEYS = ['signal', 'onProfile', 'onDeviceMs'] as const;

const PROGRAM_CACHE_BYTES = 32 * 2 ** 20;

export interface LoadProgress {
  readonly loadedBytes: number;
  readonly totalBytes: number;
}

export class ModelRuntime {
  readonly backend: Backend;
  readonly dtype: ModelDType;
  readonly #release: () => Promise<void>;
  readonly #weights = new Map<string, DeviceWeight>();
  readonly #arena: Arena;
  readonly #programs = new Map<string, { program: Program; bytes: number }>();
  #cacheBytes = 0;
  #disposing: Promise<void> | undefined;

  private constructor(backend: Backend, release: () => Promise<void>, dtype: ModelDType) {
    this.backend = backend;
    this.dtype = dtype;
    this.#release = release;
    this.#arena = backend.createArena();
  }

  /**
   * Opens the device and uploads every parameter.
   * @throws OPTION, DEVICE, MEMORY, WEIGHTS, ABORTED; nothing stays behind
   */
  static async open(
    parameters: Iterable<ParameterDeclaration>,
    options: ModelOptions,
    sourceOf: (parameter: ParameterDeclaration) => WeightSource,
    onProgress?: (progress: LoadProgress) => void,
  ): Promise<ModelRuntime> {
    const dtype = options.dtype ?? 'f32';
    if (!MODEL_DTYPES.includes(dtype)) {
      const near = nearestWord(String(dtype), MODEL_DTYPES);
      throw new MatMambaError('OPTION', `there is no dtype '${String(dtype)}'`, {
        hint: near ? `did you mean '${near}'?` : `dtypes: ${MODEL_DTYPES.join(', ')}`,
      });
    }
    const all = [...parameters];
    const { backend, release } = await acquireBackend(options);
    const runtime = new ModelRuntime(backend, release, dtype);
    try {
      checkDType(dtype, backend.capabilities());
      runtime.#checkRoom(all);
      await runtime.#upload(all, sourceOf, options.signal, onProgress);
    } catch (error) {
      await runtime.dispose();
      throw error;
    }
    return runtime;
  }

  /** Overwrites weights; runs that were asked for before see the old ones, later runs the new. */
  async replace(
    parameters: readonly ParameterDeclaration[],
    sourceOf: (parameter: ParameterDeclaration) => WeightSource,
  ): Promise<void> {
    this.checkOpen();
    await Promise.all(parameters.map((parameter) => this.weight(parameter.name).write(sourceOf(parameter))));
  }

  /**
   * Runs the program of `key`, traced and compiled when it is first asked for. Its turn is taken before this returns, so
   * whatever the caller asks for next (a snapshot, a disposal) comes after it. Where widths can be chosen, an error of
   * one that is too large names those that would fit.
   * @throws DISPOSED, ABORTED, MEMORY, DEVICE
   */
  async run(
    key: string,
    trace: ((graph: Graph) => void) | ElasticTrace,
    inputs: ProgramInputs,
    options: CallOptions,
  ): Promise<Record<string, Float32Array>> {
    this.checkOpen();
    const program = this.#programs.get(key)?.program ?? this.#compile(trace);
    this.#remember(key, program);
    return program.run(inputs, { signal: options.signal, profile: options.onProfile, onDeviceMs: options.onDeviceMs });
  }

  /** Adds zeroed buffers that programs find as parameters of these names. @throws MEMORY; then none stays behind */
  async allocate(specs: readonly ParameterSpec[]): Promise<void> {
    this.checkOpen();
    const zeros = (spec: ParameterSpec): WeightSource => ({
      rows: (_, count) => new Float32Array(count * sizeOf(spec.shape.slice(1))),
    });
    try {
      for (const spec of specs) this.#weights.set(spec.name, await this.backend.upload(spec, 'f32', zeros(spec)));
    } catch (error) {
      this.release(specs);
      throw error;
    }
  }

  /** Frees buffers once what runs is done, and forgets all programs: some know where the buffers lay. */
  release(specs: readonly ParameterSpec[]): void {
    const buffers = specs.map(({ name }) => this.#weights.get(name));
    this.#dropPrograms();
    void this.backend.settled().then(() => {
      for (const buffer of buffers) {
        if (!buffer) continue;
        buffer.release();
        if (this.#weights.get(buffer.spec.name) === buffer) this.#weights.delete(buffer.spec.name);
      }
    });
  }

  /** A parameter's values as they are stored now. */
  read({ name, shape }: ParameterDeclaration): Float32Array | Promise<Float32Array> {
    return this.weight(name).read(0, shape[0]!);
  }

  /** @throws DISPOSED */
  weight(name: string): DeviceWeight {
    this.checkOpen();
    return this.#weights.get(name)!;
  }

  get weightBytes(): number {
    return [...this.#weights.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Bytes of activations and programs. */
  get workBytes(): number {
    return this.#arena.bytes + this.#cacheBytes;
  }

  checkOpen(): void {
    if (this.#disposing) throw new MatMambaError('DISPOSED', 'this model was disposed');
  }

  /** Frees everything once what runs is done. */
  dispose(): Promise<void> {
    this.#disposing ??= this.#free();
    return this.#disposing;
  }

  async #free(): Promise<void> {
    this.#dropPrograms();
    await this.backend.settled();
    this.#arena.dispose();
    for (const weight of this.#weights.values()) weight.release();
    this.#weights.clear();
    await this.#release();
  }

  #checkRoom(parameters: readonly ParameterDeclaration[]): void {
    const { memoryLimitBytes, dtypes } = this.backend.capabilities();
    const needed = (dtype: ModelDType): number =>
      parameters.reduce((sum, spec) => sum + sizeOf(spec.shape) * elementBytes(storageFor(spec, dtype)), 0);
    if (needed(this.dtype) <= memoryLimitBytes) return;
    const fitting = dtypes.filter((dtype) => needed(dtype) < 0.9 * memoryLimitBytes);
    throw new MatMambaError(
      'MEMORY',
      `weights in ${this.dtype} take ${gigabytes(needed(this.dtype))}, the ${this.backend.name} backend holds ${gigabytes(memoryLimitBytes)}`,
      {
        hint: fitting.length > 0 ? `load with dtype ${fitting.join(' or ')}` : 'no dtype makes this model small enough',
      },
    );
  }

  async #upload(
    parameters: readonly ParameterDeclaration[],
    sourceOf: (parameter: ParameterDeclaration) => WeightSource,
    signal: AbortSignal | undefined,
    onProgress: ((progress: LoadProgress) => void) | undefined,
  ): Promise<void> {
    const totalBytes = parameters.reduce((sum, { shape }) => sum + 4 * sizeOf(shape), 0);
    let loadedBytes = 0;
    for (const parameter of parameters) {
      this.#weights.set(parameter.name, await this.backend.upload(parameter, this.dtype, sourceOf(parameter), signal));
      loadedBytes += 4 * sizeOf(parameter.shape);
      onProgress?.({ loadedBytes, totalBytes });
    }
  }

  #compile(trace: ((graph: Graph) => void) | ElasticTrace): Program {
    if (typeof trace === 'function') return this.#compileTrace(trace);
    const at = (dims: readonly number[]): Program => this.#compileTrace((graph) => trace.trace(graph, dims));
    try {
      return at(trace.dims);
    } catch (error) {
      throw withFittingWidths(error, trace, (dims) => {
        try {
          at(dims).dispose();
          return true;
        } catch {
          return false;
        }
      });
    }
  }

  #compileTrace(trace: (graph: Graph) => void): Program {
    const graph = new Graph();
    trace(graph);
    return this.backend.compile(graph, this.#weights, this.#arena, this.dtype);
  }

  /** Marks a program as the latest used and drops the oldest beyond the bound. */
  #remember(key: string, program: Program): void {
    const { bytes } = program;
    this.#forget(key);
    this.#programs.set(key, { program, bytes });
    this.#cacheBytes += bytes;
    for (const [oldest, held] of this.#programs) {
      if (this.#cacheBytes <= PROGRAM_CACHE_BYTES || oldest === key) break;
      this.#forget(oldest);
      held.program.dispose();
    }
  }

  #dropPrograms(): void {
    for (const { program } of this.#programs.values()) program.dispose();
    this.#programs.clear();
    this.#cacheBytes = 0;
  }

  #forget(key: string): void {
    this.#cacheBytes -= this.#programs.get(key)?.bytes ?? 0;
    this.#programs.delete(key);
  }
}

function elementBytes(storage: ReturnType<typeof storageFor>): number {
  return { f32: 4, bf16: 2, f16: 2, int8: 1, int4: 0.5 }[storage];
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(2)} GB`;
}
