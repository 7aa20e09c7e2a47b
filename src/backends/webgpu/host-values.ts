/** A program's inputs and results between callers' arrays and memory as the plan lays it out. */

import { MatMambaError } from '../../errors.ts';
import { type Sym, type Value, arenaBytes, paddedColumns, rowsOf } from '../../graph/graph.ts';
import { REGION_ALIGN_BYTES } from '../../graph/plan.ts';
import { sizeOf } from '../../tensor/tensor.ts';
import type { ProgramInputs } from '../backend.ts';

export function alignRegion(bytes: number): number {
  return Math.ceil(bytes / REGION_ALIGN_BYTES) * REGION_ALIGN_BYTES;
}

/** Bytes from the arena's start to behind the inputs: the plan places all inputs first, side by side. */
export function inputBytes(inputs: ReadonlyMap<string, Sym>, offsetOf: (value: Value) => number): number {
  return [...inputs.values()].reduce((end, { value }) => Math.max(end, alignRegion(offsetOf(value) + arenaBytes(value))), 0);
}

/**
 * Writes inputs where the plan has them; `memory` is the arena's start, and its columns that pad rows stay as they are.
 * @throws INTERNAL for one that is missing or of another size
 */
export function packInputs(
  declared: ReadonlyMap<string, Sym>,
  given: ProgramInputs,
  offsetOf: (value: Value) => number,
  { buffer, byteOffset }: Uint8Array,
): void {
  for (const [name, { value }] of declared) {
    const data = given[name];
    if (data?.length !== sizeOf(value.shape)) {
      throw new MatMambaError('INTERNAL', `input '${name}' needs ${sizeOf(value.shape)} elements, got ${data?.length}`);
    }
    const at = byteOffset + offsetOf(value);
    if (value.dtype === 'i32') {
      new Int32Array(buffer, at, data.length).set(data as Int32Array);
      continue;
    }
    const width = value.shape.at(-1) ?? 1;
    const target = new Float32Array(buffer, at, arenaBytes(value) / 4);
    copyRows(data as Float32Array, width, target, paddedColumns(width), data.length / width, width);
  }
}

/** Bytes of the results' values one after another, aligned as `unpackOutputs` reads them. */
export function outputBytes(outputs: ReadonlyMap<string, Sym>): number {
  return [...outputs.values()].reduce((sum, { value }) => sum + alignRegion(arenaBytes(value)), 0);
}

/** Copies of the results without padding, from their values one after another. */
export function unpackOutputs(
  outputs: ReadonlyMap<string, Sym>,
  { buffer, byteOffset }: Uint8Array,
): Record<string, Float32Array> {
  const results: Record<string, Float32Array> = {};
  let at = byteOffset;
  for (const [name, { value, column, shape, width }] of outputs) {
    const rows = rowsOf(shape);
    if (value.dtype === 'i32') results[name] = Float32Array.from(new Int32Array(buffer, at, sizeOf(value.shape)));
    else {
      const stride = paddedColumns(value.shape.at(-1) ?? 1);
      const source = new Float32Array(buffer, at, rows * stride);
      const result = new Float32Array(rows * width);
      copyRows(source.subarray(column), stride, result, width, rows, width);
      results[name] = result;
    }
    at += alignRegion(arenaBytes(value));
  }
  return results;
}

/** Below this width a loop over elements costs less than one view for every row. */
const NARROW = 64;

/** Rows of `width` floats from one row length to another. */
function copyRows(from: Float32Array, fromStride: number, to: Float32Array, toStride: number, rows: number, width: number): void {
  if (fromStride === width && toStride === width) to.set(from.subarray(0, rows * width));
  else if (width < NARROW) {
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < width; i++) to[row * toStride + i] = from[row * fromStride + i]!;
    }
  } else
    for (let row = 0; row < rows; row++) {
      to.set(from.subarray(row * fromStride, row * fromStride + width), row * toStride);
    }
}
