/**
 * The seam between graphs and devices. A backend stores weights, keeps state slots, and turns a graph into a program
 * that is replayed with new inputs. Everything above this line is device-free.
 */

import type { RankGroup } from '../distributed/communicator.ts';
import { MatMambaError } from '../errors.ts';
import type { Graph, ParameterSpec } from '../graph/graph.ts';
import type { DType, TypedArray } from '../tensor/dtype.ts';

export const DEVICE_NAMES = ['cpu', 'cuda', 'webgpu'] as const;
export type DeviceName = (typeof DEVICE_NAMES)[number];

/** Storages of matrices that every device has. */
export const COMMON_DTYPES = ['f32', 'bf16', 'f16', 'int8'] as const;
/** How matrices are stored on the device; everything else stays float32. `int4` is for WebGPU. */
export const WEIGHT_DTYPES = [...COMMON_DTYPES, 'int4'] as const;
export type WeightStorage = (typeof WEIGHT_DTYPES)[number];

/**
 * What a model computes in. The storages are themselves: on a GPU `bf16` and `f16` are also the element of activations
 * and products, and int8 weights are multiplied in bf16. `tf32` is float32 with TF32 products; `bf16-mixed`, for
 * training, keeps float32 weights and multiplies bf16 copies of them. Both need a GPU.
 */
export const MODEL_DTYPES = [...WEIGHT_DTYPES, 'tf32', 'bf16-mixed'] as const;
export type ModelDType = (typeof MODEL_DTYPES)[number];
/** Those of CUDA. */
export const CUDA_DTYPES: readonly ModelDType[] = [...COMMON_DTYPES, 'tf32', 'bf16-mixed'];

/** What a device can do here and why it was set up so; all values are printable. */
export interface Capabilities {
  readonly device: DeviceName;
  /** Worker threads of the host that compute; 0 where a GPU does. */
  readonly threads: number;
  /** The device in a few words: `2 threads`, `NVIDIA H200`. */
  readonly summary: string;
  /** What else there is to know (SIMD, libraries, versions), by name. */
  readonly facts: Readonly<Record<string, string>>;
  /** Largest number of bytes that weights, states and activations may take together. */
  readonly memoryLimitBytes: number;
  readonly dtypes: readonly ModelDType[];
  /** Tokens (B * T) that one program takes; longer inputs run in pieces. */
  readonly programTokens: number;
  /** Whether a long program replays without the host's help between its parts: training steps are then one program. */
  readonly replaysWhole: boolean;
  /** Ops without a kernel on this device, with the reason. */
  readonly unsupported: Readonly<Record<string, string>>;
}

/** Rows as whole numbers (of int4: from -8 to 7) and the scales of each row's groups. */
export interface QuantisedRows {
  readonly values: Int8Array;
  readonly scales: Float32Array;
}

/** A weight on the device. */
export interface DeviceWeight {
  readonly spec: ParameterSpec;
  readonly storage: WeightStorage;
  readonly bytes: number;
  /** Rows as float32 (int8 and int4 dequantised); a promise on devices that only answer later. */
  read(first: number, count: number): Float32Array | Promise<Float32Array>;
  /** Rows as they are stored in int8 or int4, with `scales.length / count` scales a row. */
  readInt8(first: number, count: number): QuantisedRows | Promise<QuantisedRows>;
  /** Overwrites all of it once all earlier runs are done; later runs see the new values. */
  write(source: WeightSource): Promise<void>;
  /** Its float32 memory as it is stored, padding included, where the host can reach it; else undefined. */
  hostView(): Float32Array | undefined;
  release(): void;
}

/** One sequence's state on the device; programs find it by its index. */
export interface StateSlot {
  readonly index: number;
  /** A copy of its bytes once all earlier runs are done. */
  read(): Promise<Uint8Array>;
  /** Overwrites it once all earlier runs are done. */
  write(bytes: Uint8Array): Promise<void>;
  /** Frees it once all earlier runs are done. */
  release(): void;
}

/** Where an upload reads from, piece by piece, so that a model never lies in memory twice. */
export interface WeightSource {
  /** Rows `first .. first + count` (axis 0) as float32, row-major. */
  rows(first: number, count: number): Promise<Float32Array> | Float32Array;
  /** Rows as they were quantised on disk, when the file has them so. */
  readonly quantised?: QuantisedSource;
}

export interface QuantisedSource {
  readonly storage: 'int8' | 'int4';
  readonly groupSize: number;
  rows(first: number, count: number): Promise<QuantisedRows>;
}

/** The rows as they were quantised on disk, where that is how they are stored. */
export function quantisedAs(storage: WeightStorage, { quantised }: WeightSource): QuantisedSource | undefined {
  return quantised?.storage === storage ? quantised : undefined;
}

/** Working memory that all programs of a model share; it grows to the largest of them. */
export interface Arena {
  readonly bytes: number;
  dispose(): void;
}

export type ProgramInputs = Readonly<Record<string, TypedArray>>;

/** Time and work of one op of a replay. */
export interface OpProfile {
  readonly op: string;
  readonly scope: string;
  readonly ms: number;
  readonly flops: number;
  readonly bytes: number;
}

export interface RunOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called once after the run with what each op took. */
  readonly profile?: ((ops: readonly OpProfile[]) => void) | undefined;
  /** Called once after the run with the milliseconds that it took on a GPU, without copies from and to the host. */
  readonly onDeviceMs?: ((ms: number) => void) | undefined;
}

/** A compiled graph. */
export interface Program {
  /** Bytes this program holds beside the shared arena, on the device and beside it. */
  readonly bytes: number;
  /**
   * Replays with new inputs; the results are the caller's own copies, without padding.
   * @throws ABORTED, DEVICE
   */
  run(inputs: ProgramInputs, options?: RunOptions): Promise<Record<string, Float32Array>>;
  /** Frees it once all earlier runs are done. */
  dispose(): void;
}

export interface MemoryUse {
  readonly weightBytes: number;
  readonly stateBytes: number;
  readonly workBytes: number;
}

/** @throws DEVICE for a dtype that the device does not have */
export function checkDType(dtype: ModelDType, { device, dtypes }: Capabilities): void {
  if (dtypes.includes(dtype)) return;
  throw new MatMambaError('DEVICE', `the dtype ${dtype} does not run on the device '${device}'`, {
    hint: `dtypes there: ${dtypes.join(', ')}`,
  });
}

/** A device. Calls may overlap; programs run one after another in the order they were asked for. */
export interface Backend {
  readonly name: DeviceName;
  capabilities(): Capabilities;
  /** Converts and stores one weight. @throws MEMORY, ABORTED */
  upload(spec: ParameterSpec, dtype: ModelDType, source: WeightSource, signal?: AbortSignal): Promise<DeviceWeight>;
  createArena(): Arena;
  /** @throws DEVICE for an op or dtype that the device lacks */
  compile(graph: Graph, weights: ReadonlyMap<string, DeviceWeight>, arena: Arena, dtype: ModelDType): Program;
  /** A zeroed state of so many bytes. @throws MEMORY */
  createSlot(bytes: number): StateSlot;
  /** What was chosen by measuring so far (products by shape), for runs that have to repeat; empty where nothing is. */
  choices(): Readonly<Record<string, string>>;
  /** Takes over the choices of an earlier run; those of another kind of device change nothing. */
  adoptChoices(choices: Readonly<Record<string, string>>): void;
  /**
   * Joins the devices of a job's other ranks, which then sum and copy among themselves; for devices that can. Every rank
   * must call it. @throws DEVICE
   */
  joinRanks?(group: RankGroup): Promise<void>;
  /** Resolves when everything asked for so far is done. */
  settled(): Promise<void>;
  dispose(): Promise<void>;
}

/** What a parameter is stored as: only matrices follow the model's dtype. */
export function storageFor(spec: ParameterSpec, dtype: ModelDType): WeightStorage {
  if (spec.layout !== 'matrix' || spec.precise) return 'f32';
  return dtype === 'tf32' || dtype === 'bf16-mixed' ? 'f32' : dtype;
}

/** The tensor dtype that a stored weight is given back as by `stateDict()`. */
export function tensorDType(storage: WeightStorage): DType {
  return storage === 'int8' || storage === 'int4' ? 'f32' : storage;
}
