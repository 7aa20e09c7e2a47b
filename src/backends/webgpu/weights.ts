/**
 * How parameters lie in device memory (row-major, matrices with rows padded to a multiple of 16, cut by rows where a
 * buffer would be larger than the device allows) and the way there and back, piece by piece, so that a model never lies
 * in host memory twice.
 */

import { MatMambaError, throwIfAborted } from '../../errors.ts';
import { type ParameterSpec, paddedColumns } from '../../graph/graph.ts';
import type { WebGpuElement, WebGpuWeight, WeightPart } from '../../ops/webgpu-kernel.ts';
import { fromFloat32, toFloat32 } from '../../tensor/dtype.ts';
import { INT4_GROUP, dequantise, packInt4, quantiseInt4, unpackInt4 } from '../../tensor/int4.ts';
import { type Shape, sizeOf } from '../../tensor/tensor.ts';
import {
  type DeviceWeight,
  type QuantisedRows,
  type WeightSource,
  type WeightStorage,
  quantisedAs,
  tensorDType,
} from '../backend.ts';
import { checkGroupSize, checkScales, finiteHalves, quantise } from '../quantise.ts';
import type { DeviceBuffer, WebGpuDevice } from './device.ts';

const PIECE_BYTES = 16 * 2 ** 20;
const ELEMENT_BYTES: Readonly<Record<WebGpuElement, number>> = { f32: 4, bf16: 2, f16: 2, i8: 1, i4: 0.5 };
const ELEMENT_OF: Readonly<Record<WeightStorage, WebGpuElement>> = {
  f32: 'f32',
  bf16: 'bf16',
  f16: 'f16',
  int8: 'i8',
  int4: 'i4',
};

/** What weights need of the backend that holds them. */
export interface WeightHost {
  readonly device: WebGpuDevice;
  /** Runs `work` once everything asked for before is done. */
  exclusive<R>(work: () => R | Promise<R>): Promise<R>;
  checkOpen(): void;
  /** A copy of bytes of a buffer. */
  readBuffer(buffer: DeviceBuffer, offset: number, bytes: number): Promise<Uint8Array<ArrayBuffer>>;
}

interface StoredPart extends WeightPart {
  readonly values: DeviceBuffer;
  readonly scales: DeviceBuffer | undefined;
}

/** A parameter on the device. */
export class WebGpuStoredWeight implements DeviceWeight, WebGpuWeight {
  readonly spec: ParameterSpec;
  readonly storage: WeightStorage;
  readonly element: WebGpuElement;
  readonly stride: number;
  readonly groupSize: number;
  readonly groups: number;
  readonly #host: WeightHost;
  readonly #rows: number;
  readonly #columns: number;
  readonly #parts: StoredPart[] = [];
  #released = false;

  private constructor(host: WeightHost, spec: ParameterSpec, storage: WeightStorage, groupSize?: number) {
    this.#host = host;
    this.spec = spec;
    this.storage = storage;
    this.element = ELEMENT_OF[storage];
    this.#rows = spec.shape[0] ?? 1;
    this.#columns = sizeOf(spec.shape.slice(1));
    this.stride = spec.layout === 'matrix' ? paddedColumns(this.#columns) : this.#columns;
    const isQuantised = storage === 'int8' || storage === 'int4';
    const usual = storage === 'int4' ? INT4_GROUP : this.stride;
    this.groupSize = isQuantised ? Math.min(groupSize ?? usual, this.stride) : 0;
    if (isQuantised) checkGroupSize(this.groupSize);
    this.groups = this.groupSize ? Math.ceil(this.stride / this.groupSize) : 0;
  }

  /** Its zeroed memory. @throws MEMORY */
  static async allocate(
    host: WeightHost,
    spec: ParameterSpec,
    storage: WeightStorage,
    groupSize?: number,
  ): Promise<WebGpuStoredWeight> {
    const weight = new WebGpuStoredWeight(host, spec, storage, groupSize);
    const rowBytes = ELEMENT_BYTES[weight.element] * weight.stride;
    const rowsOfPart = Math.max(1, Math.floor((host.device.bufferLimitBytes - 256) / rowBytes));
    try {
      for (let firstRow = 0; firstRow < weight.#rows; firstRow += rowsOfPart) {
        const rows = Math.min(rowsOfPart, weight.#rows - firstRow);
        const values = await host.device.allocate(rows * rowBytes, spec.name);
        const part: StoredPart = { firstRow, rows, values, scales: undefined };
        weight.#parts.push(part);
        if (weight.groups === 0) continue;
        const scales = await host.device.allocate(4 * rows * weight.groups, `${spec.name} scales`);
        weight.#parts[weight.#parts.length - 1] = { ...part, scales };
      }
    } catch (error) {
      weight.release();
      throw error;
    }
    return weight;
  }

  get layout(): ParameterSpec['layout'] {
    return this.spec.layout;
  }
  get shape(): Shape {
    return this.spec.shape;
  }
  get parts(): readonly StoredPart[] {
    return this.#parts;
  }
  get bytes(): number {
    return this.#parts.reduce((sum, { values, scales }) => sum + values.bytes + (scales?.bytes ?? 0), 0);
  }
  get values(): DeviceBuffer {
    if (this.#parts.length > 1) throw new MatMambaError('INTERNAL', `${this.spec.name} lies in several parts`);
    return this.#parts[0]!.values;
  }

  /** Converts and stores all rows. @throws ABORTED, and what the source throws */
  async fill(source: WeightSource, signal?: AbortSignal): Promise<void> {
    const pieceRows = Math.max(1, Math.floor(PIECE_BYTES / (4 * this.#columns)));
    const quantised = this.groups > 0 ? quantisedAs(this.storage, source) : undefined;
    for (const part of this.#parts) {
      for (let row = 0; row < part.rows; row += pieceRows) {
        throwIfAborted(signal);
        const count = Math.min(pieceRows, part.rows - row);
        const first = part.firstRow + row;
        if (quantised) {
          const rows = await quantised.rows(first, count);
          this.#check();
          this.#putQuantised(part, row, rows);
        } else {
          const values = await source.rows(first, count);
          this.#check();
          this.#fillPiece(part, row, values);
        }
        // What is on its way is kept in host memory: no more than a piece of it.
        if (pieceRows < this.#rows) await this.#host.device.gpu.queue.onSubmittedWorkDone();
      }
    }
  }

  async read(first: number, count: number): Promise<Float32Array> {
    if (this.groups > 0) {
      const { values, scales } = await this.readInt8(first, count);
      return dequantise(values, scales, this.#columns, this.groupSize, this.groups);
    }
    if (this.element === 'f32') return this.#get(first, count, Float32Array);
    const stored = await this.#get(first, count, Uint16Array);
    const values = new Float32Array(stored.length);
    toFloat32(tensorDType(this.storage), stored, values);
    return values;
  }

  async readInt8(first: number, count: number): Promise<QuantisedRows> {
    if (this.groups === 0) throw new MatMambaError('INTERNAL', `${this.spec.name} is not stored in int8`);
    const scales = new Float32Array(count * this.groups);
    for (const { part, row, rows, at } of this.#partsOf(first, count)) {
      const bytes = await this.#host.readBuffer(part.scales!, 4 * row * this.groups, 4 * rows * this.groups);
      scales.set(new Float32Array(bytes.buffer), at * this.groups);
    }
    if (this.element === 'i8') return { values: await this.#get(first, count, Int8Array), scales };
    const values = new Int8Array(count * this.#columns);
    const rowBytes = this.stride / 2;
    for (const { part, row, rows, at } of this.#partsOf(first, count)) {
      const bytes = await this.#host.readBuffer(part.values, row * rowBytes, rows * rowBytes);
      values.set(unpackInt4(bytes, this.#columns, rowBytes), at * this.#columns);
    }
    return { values, scales };
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
    for (const { values, scales } of this.#parts) {
      values.free();
      scales?.free();
    }
  }

  #check(): void {
    if (this.#released) throw new MatMambaError('DISPOSED', `the weight ${this.spec.name} was released`);
    this.#host.checkOpen();
  }

  #fillPiece(part: StoredPart, row: number, values: Float32Array): void {
    if (this.element === 'f32') return this.#put(part, row, this.#padded(values));
    if (this.element === 'bf16') return this.#put(part, row, this.#padded(fromFloat32('bf16', values)));
    if (this.element === 'f16') return this.#put(part, row, this.#padded(finiteHalves(this.spec.name, values)));
    if (this.element === 'i4') return this.#putQuantised(part, row, quantiseInt4(values, this.#columns, this.groupSize));
    const { quantised, scales } = quantise(values, this.#columns, this.groupSize, this.groups);
    this.#putQuantised(part, row, { values: quantised, scales });
  }

  #putQuantised(part: StoredPart, row: number, { values, scales }: QuantisedRows): void {
    checkScales(this.spec.name, scales, values.length / this.#columns, this.groups);
    const padded = this.#padded(values);
    this.#put(part, row, this.element === 'i4' ? packInt4(padded, padded.length) : padded);
    this.#putScales(part, row, scales);
  }

  /** Rows with their padding, and an end that is a whole number of 4-byte words, as WebGPU copies them. */
  #padded<A extends Float32Array | Uint16Array | Int8Array>(values: A): A {
    const rows = values.length / this.#columns;
    const wordElements = 4 / values.BYTES_PER_ELEMENT;
    const length = Math.ceil((rows * this.stride) / wordElements) * wordElements;
    if (length === values.length) return values;
    const padded = new (values.constructor as new (length: number) => A)(length);
    if (this.stride === this.#columns) padded.set(values);
    else
      for (let row = 0; row < rows; row++) {
        padded.set(values.subarray(row * this.#columns, (row + 1) * this.#columns), row * this.stride);
      }
    return padded;
  }

  #put({ values }: StoredPart, row: number, rows: ArrayBufferView): void {
    const { queue } = this.#host.device.gpu;
    queue.writeBuffer(values.gpu, row * this.stride * ELEMENT_BYTES[this.element], rows);
  }

  #putScales({ scales }: StoredPart, row: number, values: Float32Array): void {
    const { queue } = this.#host.device.gpu;
    queue.writeBuffer(scales!.gpu, 4 * row * this.groups, values);
  }

  /** Where rows lie: rows `row .. row + rows` of a part are those from `at` on of what is asked for. */
  *#partsOf(first: number, count: number): Generator<{ part: StoredPart; row: number; rows: number; at: number }> {
    for (const part of this.#parts) {
      const from = Math.max(first, part.firstRow);
      const rows = Math.min(first + count, part.firstRow + part.rows) - from;
      if (rows > 0) yield { part, row: from - part.firstRow, rows, at: from - first };
    }
  }

  async #get<A extends Float32Array | Uint16Array | Int8Array>(
    first: number,
    count: number,
    make: { new (length: number): A; new (buffer: ArrayBuffer): A },
  ): Promise<A> {
    this.#check();
    const result = new make(count * this.#columns);
    const rowBytes = this.stride * ELEMENT_BYTES[this.element];
    for (const { part, row, rows, at } of this.#partsOf(first, count)) {
      const stored = new make((await this.#host.readBuffer(part.values, row * rowBytes, rows * rowBytes)).buffer);
      for (let i = 0; i < rows; i++) {
        result.set(stored.subarray(i * this.stride, i * this.stride + this.#columns), (at + i) * this.#columns);
      }
    }
    return result;
  }
}
