/**
 * How parameters lie in device memory (row-major, matrices with rows padded to a multiple of 16) and the way there and
 * back, piece by piece, so that a model never lies in host memory twice.
 */

import { MatMambaError, throwIfAborted } from '../../errors.ts';
import { type ParameterSpec, paddedColumns } from '../../graph/graph.ts';
import { type CudaElement, type CudaWeight, ELEMENT_BYTES } from '../../ops/cuda-kernel.ts';
import { fromFloat32, toFloat32 } from '../../tensor/dtype.ts';
import { type Shape, sizeOf } from '../../tensor/tensor.ts';
import { type DeviceWeight, type WeightSource, type WeightStorage, quantisedAs } from '../backend.ts';
import { checkGroupSize, checkScales, finiteHalves, quantise } from '../quantise.ts';
import type { CudaDriver } from './driver.ts';

const PIECE_BYTES = 32 * 2 ** 20;
/** Floats behind a vector that a kernel may read in whole vectors. */
const VECTOR_SLACK = 16;

/** What weights need of the backend that holds them. */
export interface WeightHost {
  readonly driver: CudaDriver;
  /** Runs `work` once everything asked for before is done. */
  exclusive<R>(work: () => R | Promise<R>): Promise<R>;
  checkOpen(): void;
}

/** A parameter on the device. */
export class CudaStoredWeight implements DeviceWeight, CudaWeight {
  readonly spec: ParameterSpec;
  readonly storage: WeightStorage;
  readonly element: Exclude<CudaElement, 'i32'>;
  readonly stride: number;
  readonly groupSize: number;
  readonly pointer: bigint;
  readonly scales: bigint;
  readonly bytes: number;
  readonly #host: WeightHost;
  readonly #rows: number;
  readonly #columns: number;
  readonly #groups: number;
  #released = false;

  /** @throws MEMORY */
  constructor(host: WeightHost, spec: ParameterSpec, storage: WeightStorage, groupSize?: number) {
    this.#host = host;
    this.spec = spec;
    this.storage = storage;
    this.element = (storage === 'int8' ? 'i8' : storage) as typeof this.element;
    this.#rows = spec.shape[0] ?? 1;
    this.#columns = sizeOf(spec.shape.slice(1));
    const isMatrix = spec.layout === 'matrix';
    this.stride = isMatrix ? paddedColumns(this.#columns) : this.#columns;
    this.groupSize = storage === 'int8' ? Math.min(groupSize ?? this.stride, this.stride) : 0;
    if (storage === 'int8') checkGroupSize(this.groupSize);
    this.#groups = this.groupSize ? Math.ceil(this.stride / this.groupSize) : 0;
    const slack = isMatrix ? 0 : VECTOR_SLACK;
    const valueBytes = ELEMENT_BYTES[this.element] * (this.#rows * this.stride + slack);
    const scaleBytes = 4 * this.#rows * this.#groups;
    this.bytes = valueBytes + scaleBytes;
    this.pointer = host.driver.allocate(valueBytes, spec.name);
    try {
      this.scales = scaleBytes > 0 ? host.driver.allocate(scaleBytes, spec.name) : 0n;
    } catch (error) {
      host.driver.free(this.pointer);
      throw error;
    }
    host.driver.fillZero(this.pointer, valueBytes);
  }

  get layout(): ParameterSpec['layout'] {
    return this.spec.layout;
  }
  get shape(): Shape {
    return this.spec.shape;
  }

  /** Converts and stores all rows. @throws ABORTED, and what the source throws */
  async fill(source: WeightSource, signal?: AbortSignal): Promise<void> {
    const piece = Math.max(1, Math.floor(PIECE_BYTES / (4 * this.#columns)));
    const quantised = this.element === 'i8' ? quantisedAs('int8', source) : undefined;
    for (let first = 0; first < this.#rows; first += piece) {
      throwIfAborted(signal);
      const count = Math.min(piece, this.#rows - first);
      if (quantised) {
        const { values, scales } = await quantised.rows(first, count);
        checkScales(this.spec.name, scales, count, this.#groups);
        this.#put(first, this.#padded(values));
        this.#putScales(first, scales);
      } else await this.#fillPiece(first, await source.rows(first, count));
    }
  }

  read(first: number, count: number): Float32Array {
    this.#check();
    if (this.element === 'i8') {
      const { values, scales } = this.readInt8(first, count);
      return Float32Array.from(values, (value, i) => {
        const row = Math.floor(i / this.#columns);
        return value * scales[row * this.#groups + Math.floor((i % this.#columns) / this.groupSize)]!;
      });
    }
    const stored = this.#get(first, count);
    if (this.element === 'f32') return stored as Float32Array;
    const values = new Float32Array(stored.length);
    toFloat32(this.element, stored, values);
    return values;
  }

  readInt8(first: number, count: number): { values: Int8Array; scales: Float32Array } {
    this.#check();
    if (this.element !== 'i8') throw new MatMambaError('INTERNAL', `${this.spec.name} is not stored in int8`);
    const scales = new Float32Array(count * this.#groups);
    this.#host.driver.copyToHost(bytesOf(scales), this.scales + BigInt(4 * first * this.#groups));
    return { values: this.#get(first, count) as Int8Array, scales };
  }

  write(source: WeightSource): Promise<void> {
    return this.#host.exclusive(() => this.fill(source));
  }

  hostView(): undefined {
    return undefined;
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#host.driver.free(this.pointer);
    if (this.scales) this.#host.driver.free(this.scales);
  }

  #check(): void {
    if (this.#released) throw new MatMambaError('DISPOSED', `the weight ${this.spec.name} was released`);
    this.#host.checkOpen();
  }

  async #fillPiece(first: number, values: Float32Array): Promise<void> {
    if (this.element === 'f32') return this.#put(first, this.#padded(values));
    if (this.element === 'bf16') return this.#put(first, this.#padded(fromFloat32('bf16', values)));
    if (this.element === 'f16') return this.#put(first, this.#padded(finiteHalves(this.spec.name, values)));
    const { quantised, scales } = quantise(values, this.#columns, this.groupSize, this.#groups);
    this.#put(first, this.#padded(quantised));
    this.#putScales(first, scales);
  }

  /** Rows with their padding. */
  #padded<A extends Float32Array | Uint16Array | Int8Array>(values: A): A {
    if (this.stride === this.#columns) return values;
    const rows = values.length / this.#columns;
    const padded = new (values.constructor as new (length: number) => A)(rows * this.stride);
    for (let row = 0; row < rows; row++) {
      padded.set(values.subarray(row * this.#columns, (row + 1) * this.#columns), row * this.stride);
    }
    return padded;
  }

  #put(first: number, rows: ArrayBufferView): void {
    this.#host.driver.copyToDevice(this.#rowAddress(first), bytesOf(rows));
  }

  #putScales(first: number, scales: Float32Array): void {
    this.#host.driver.copyToDevice(this.scales + BigInt(4 * first * this.#groups), bytesOf(scales));
  }

  #get(first: number, count: number): Float32Array | Uint16Array | Int8Array {
    const make = this.element === 'f32' ? Float32Array : this.element === 'i8' ? Int8Array : Uint16Array;
    const stored = new make(count * this.stride);
    this.#host.driver.copyToHost(bytesOf(stored), this.#rowAddress(first));
    if (this.stride === this.#columns) return stored;
    const rows = new make(count * this.#columns);
    for (let row = 0; row < count; row++) {
      rows.set(stored.subarray(row * this.stride, row * this.stride + this.#columns), row * this.#columns);
    }
    return rows;
  }

  #rowAddress(row: number): bigint {
    return this.pointer + BigInt(row * this.stride * ELEMENT_BYTES[this.element]);
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
