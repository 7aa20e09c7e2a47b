/** Operands of kernels that are launched without a program: values and weights put into device memory, and read back. */

import type { CudaDriver } from '../../src/backends/cuda/driver.ts';
import { paddedColumns } from '../../src/graph/graph.ts';
import type { HostValue } from '../../src/ops/cases.ts';
import { type CudaBuffer, type CudaElement, type CudaWeight, ELEMENT_BYTES } from '../../src/ops/cuda-kernel.ts';
import { fromFloat32, toFloat32, viewAs } from '../../src/tensor/dtype.ts';

export type FloatElement = Exclude<CudaElement, 'i8' | 'i32'>;

export const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** A value as an element stores it. */
export function rounded(value: HostValue, element: FloatElement): HostValue {
  const target = new Float32Array(value.data.length);
  toFloat32(element, fromFloat32(element, Float32Array.from(value.data)), target);
  return { shape: value.shape, data: Float64Array.from(target) };
}

/** A view of some columns. */
export function columnsOf(buffer: CudaBuffer, column: number, width: number): CudaBuffer {
  const pointer = buffer.pointer + BigInt(column * ELEMENT_BYTES[buffer.element]);
  return { ...buffer, pointer, width, shape: [...buffer.shape.slice(0, -1), width] };
}

/** What of a buffer's content, as `readRows` gives it, are its columns. */
export function withoutPadding({ rows, width, stride }: CudaBuffer, padded: Float32Array): Float64Array {
  const all = Array.from({ length: rows }, (_, row) => [...padded.subarray(row * stride, row * stride + width)]);
  return Float64Array.from(all.flat());
}

/** Makes operands in the memory of a device. */
export function deviceValues(driver: CudaDriver) {
  function upload(bytes: Uint8Array): bigint {
    const pointer = driver.allocate(bytes.byteLength, 'a test');
    driver.copyToDevice(pointer, bytes);
    return pointer;
  }

  function download(pointer: bigint, bytes: number): Uint8Array {
    const target = new Uint8Array(bytes);
    driver.copyToHost(target, pointer);
    return target;
  }

  /** Rows of the value, padded to a multiple of 16 columns; the padding holds what must not be read. */
  function deviceBuffer(value: HostValue, element: FloatElement): CudaBuffer {
    const width = value.shape.at(-1)!;
    const rows = value.data.length / width;
    const stride = paddedColumns(width);
    const padded = new Float32Array(rows * stride).fill(NaN);
    for (let row = 0; row < rows; row++) padded.set(value.data.subarray(row * width, (row + 1) * width), row * stride);
    const pointer = upload(bytesOf(fromFloat32(element, padded)));
    return { pointer, element, stride, rows, width, shape: value.shape };
  }

  /** What a buffer holds, with its padding. */
  function readRows({ pointer, element, stride, rows }: CudaBuffer): Float32Array {
    const target = new Float32Array(rows * stride);
    const kind = element as FloatElement;
    toFloat32(kind, viewAs(kind, download(pointer, rows * stride * ELEMENT_BYTES[element])), target);
    return target;
  }

  function vector(value: HostValue, layout: 'vector' | 'taps' = 'vector'): CudaWeight {
    const pointer = upload(bytesOf(Float32Array.from(value.data)));
    return { element: 'f32', layout, shape: value.shape, pointer, stride: value.shape.at(-1)!, scales: 0n, groupSize: 0 };
  }

  /** A matrix in `element`, and what it then holds. */
  function matrix(value: HostValue, element: CudaWeight['element'], groupSize: number): { weight: CudaWeight; host: HostValue } {
    const [rows, columns] = value.shape as [number, number];
    const stride = paddedColumns(columns);
    const common = { element, layout: 'matrix', shape: value.shape, stride } as const;
    const padded = new Float32Array(rows * stride);
    for (let row = 0; row < rows; row++) padded.set(value.data.subarray(row * columns, (row + 1) * columns), row * stride);
    if (element !== 'i8') {
      const pointer = upload(bytesOf(fromFloat32(element, padded)));
      return { weight: { ...common, pointer, scales: 0n, groupSize: 0 }, host: rounded(value, element) };
    }
    const size = groupSize || stride;
    const groups = Math.ceil(stride / size);
    const values = new Int8Array(rows * stride);
    const scales = new Float32Array(rows * groups);
    const host = new Float64Array(value.data.length);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const group = row * groups + Math.floor(column / size);
        const first = row * stride + Math.floor(column / size) * size;
        scales[group] ||= Math.fround(Math.max(...padded.subarray(first, first + size).map(Math.abs)) / 127);
        values[row * stride + column] = Math.round(padded[row * stride + column]! / scales[group]);
        host[row * columns + column] = values[row * stride + column]! * scales[group];
      }
    }
    const weight = { ...common, pointer: upload(bytesOf(values)), scales: upload(bytesOf(scales)), groupSize: size };
    return { weight, host: { shape: value.shape, data: host } };
  }
  return { upload, download, deviceBuffer, readRows, vector, matrix };
}
