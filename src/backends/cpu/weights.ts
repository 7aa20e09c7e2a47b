/**
 * How parameters lie in the CPU backend's memory, and the conversion to and from that form.
 *
 * A float32 matrix is row-major. bfloat16, half and int8 lie in panels of 8 rows, [panel][column][8] (rows 0, 4, 1, 5,
 * 2, 6, 3, 7, so that even and odd halves are four rows each) and [panel][column / 8][8][8], with int8 scales
 * [panel][group][8]: a product with one row reads them as one ascending stream. Columns are zero-padded to a multiple of 16, so a prefix of columns, and rows from a multiple of 8 on, are
 * views. Taps are transposed to [K][stride] so that channels are contiguous. Vectors end in 16 floats of slack.
 */

import { MatMambaError } from '../../errors.ts';
import { type ParameterSpec, paddedColumns } from '../../graph/graph.ts';
import type { WeightDType } from '../../ops/cpu-kernel.ts';
import { toFloat32 } from '../../tensor/dtype.ts';
import { checkGroupSize } from '../quantise.ts';

/** Rows that lie together in storage other than float32. */
const PANEL = 8;
/** Floats after a vector that a kernel may read. */
const VECTOR_SLACK = 16;
/** Largest finite half: weights beyond it are stored as it, because the kernels read halves as finite. */
const HALF_MAX = 65504;
/** value + this - this rounds a float64 of moderate size to the nearest whole number, ties to even. */
const ROUND = 1.5 * 2 ** 52;

/** Where and how a parameter is stored. */
export interface WeightStorage {
  readonly layout: ParameterSpec['layout'];
  /** float32 unless the layout is `matrix`. */
  readonly dtype: WeightDType;
  /** Rows of the source: shape[0]. */
  readonly rows: number;
  /** Elements in each row of the source. */
  readonly columns: number;
  /** Elements from one stored row (of taps: from one tap) to the next. */
  readonly stride: number;
  readonly bytes: number;
  /** Bytes of the scales; 0 without. */
  readonly scaleBytes: number;
  /** Columns that share one scale (i8). */
  readonly groupSize: number;
  /** Scales of a row. */
  readonly scaleGroups: number;
}

/** Views of the memory that a storage describes: `bytes` and `scaleBytes` long. */
export interface WeightMemory {
  readonly values: Uint8Array;
  /** float32, empty unless the dtype is i8. */
  readonly scales: Float32Array;
}

/** The storage of a parameter; `groupSize` gives int8 one scale per so many columns instead of one per row. */
export function storageOf(spec: ParameterSpec, dtype: WeightDType, options: { readonly groupSize?: number } = {}): WeightStorage {
  const { layout, shape } = spec;
  const rows = shape[0] ?? 1;
  const columns = shape.slice(1).reduce((a, b) => a * b, 1);
  const plain = { layout, dtype: 'f32', rows, columns, scaleBytes: 0, groupSize: 0, scaleGroups: 0 } as const;
  if (layout === 'vector') return { ...plain, stride: columns, bytes: 4 * (rows * columns + VECTOR_SLACK) };
  if (layout === 'taps') {
    const stride = paddedColumns(rows);
    return { ...plain, stride, bytes: 4 * stride * columns };
  }
  const stride = paddedColumns(columns);
  if (dtype === 'f32') return { ...plain, stride, bytes: 4 * rows * stride };
  const panelRows = Math.ceil(rows / PANEL) * PANEL;
  if (dtype !== 'i8') return { ...plain, dtype, stride, bytes: 2 * panelRows * stride };
  const groupSize = Math.min(options.groupSize ?? stride, stride);
  checkGroupSize(groupSize);
  const scaleGroups = Math.ceil(stride / groupSize);
  return { ...plain, dtype, stride, bytes: panelRows * stride, scaleBytes: 4 * panelRows * scaleGroups, groupSize, scaleGroups };
}

/** Writes float32 source rows `firstRow ..` (contiguous, `columns` each) into storage. @throws WEIGHTS for a half that is not finite */
export function packRows(storage: WeightStorage, memory: WeightMemory, firstRow: number, source: Float32Array): void {
  const { layout, dtype, columns, stride } = storage;
  const rows = rowsIn(storage, firstRow, source.length);
  if (layout === 'taps') {
    const target = floats(memory.values);
    for (let row = 0; row < rows; row++) {
      for (let tap = 0; tap < columns; tap++) target[tap * stride + firstRow + row] = source[row * columns + tap]!;
    }
  } else if (dtype === 'f32') {
    const target = floats(memory.values);
    for (let row = 0; row < rows; row++) {
      const at = (firstRow + row) * stride;
      target.set(source.subarray(row * columns, (row + 1) * columns), at);
      target.fill(0, at + columns, at + stride);
    }
  } else if (dtype === 'i8') {
    packInt8(storage, memory, firstRow, rows, source);
  } else {
    const target = halves(memory.values);
    const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
    const pack = dtype === 'bf16' ? packBf16 : packHalf;
    for (let row = 0; row < rows; row++) {
      const at = halfAt(stride, firstRow + row);
      pack(bits, row * columns, columns, target, at);
      for (let column = columns; column < stride; column++) target[at + PANEL * column] = 0;
    }
  }
}

/** Writes int8 rows that are quantised already: `scales` holds `scaleGroups` per row. */
export function packInt8Rows(
  storage: WeightStorage,
  memory: WeightMemory,
  firstRow: number,
  values: Int8Array,
  scales: Float32Array,
): void {
  const { columns, stride, scaleGroups } = storage;
  const rows = rowsIn(storage, firstRow, values.length);
  if (scales.length !== rows * scaleGroups) {
    throw new MatMambaError('SHAPE', `int8 scales expected (${rows}, ${scaleGroups}), got ${scales.length} in all`);
  }
  const target = int8s(memory.values);
  for (let row = 0; row < rows; row++) {
    const at = int8At(stride, firstRow + row);
    for (let column = 0; column < stride; column++) {
      target[at + int8Column(column)] = column < columns ? values[row * columns + column]! : 0;
    }
    for (let group = 0; group < scaleGroups; group++) {
      memory.scales[scaleAt(scaleGroups, firstRow + row, group)] = scales[row * scaleGroups + group]!;
    }
  }
}

/** Reads rows `firstRow ..` back as float32 into `target`; exact except for int8, which comes back dequantised. */
export function unpackRows(storage: WeightStorage, memory: WeightMemory, firstRow: number, target: Float32Array): void {
  const { layout, dtype, columns, stride, groupSize, scaleGroups } = storage;
  const rows = rowsIn(storage, firstRow, target.length);
  if (layout === 'taps') {
    const source = floats(memory.values);
    for (let row = 0; row < rows; row++) {
      for (let tap = 0; tap < columns; tap++) target[row * columns + tap] = source[tap * stride + firstRow + row]!;
    }
    return;
  }
  for (let row = 0; row < rows; row++) {
    const out = target.subarray(row * columns, (row + 1) * columns);
    if (dtype === 'f32') {
      const at = (firstRow + row) * stride;
      out.set(floats(memory.values).subarray(at, at + columns));
    } else if (dtype === 'i8') {
      const source = int8s(memory.values);
      const at = int8At(stride, firstRow + row);
      for (let column = 0; column < columns; column++) {
        const scale = memory.scales[scaleAt(scaleGroups, firstRow + row, Math.floor(column / groupSize))]!;
        out[column] = source[at + int8Column(column)]! * scale;
      }
    } else {
      const source = halves(memory.values);
      const at = halfAt(stride, firstRow + row);
      const gathered = new Uint16Array(columns);
      for (let column = 0; column < columns; column++) gathered[column] = source[at + PANEL * column]!;
      toFloat32(dtype, gathered, out);
    }
  }
}

/** Copies rows as they are stored in int8: contiguous values, and the scales of each row. */
export function readInt8Rows(
  storage: WeightStorage,
  memory: WeightMemory,
  firstRow: number,
  count: number,
): { values: Int8Array; scales: Float32Array } {
  const { columns, stride, scaleGroups } = storage;
  const source = int8s(memory.values);
  const values = new Int8Array(count * columns);
  const scales = new Float32Array(count * scaleGroups);
  for (let row = 0; row < count; row++) {
    const at = int8At(stride, firstRow + row);
    for (let column = 0; column < columns; column++) values[row * columns + column] = source[at + int8Column(column)]!;
    for (let group = 0; group < scaleGroups; group++) {
      scales[row * scaleGroups + group] = memory.scales[scaleAt(scaleGroups, firstRow + row, group)]!;
    }
  }
  return { values, scales };
}

/** Index of a row's first half; its columns follow 8 apart. */
function halfAt(stride: number, row: number): number {
  const lane = row % PANEL;
  return (row - lane) * stride + (lane < 4 ? 2 * lane : 2 * lane - 7);
}

/** Index of a row's first int8; its columns lie at `int8Column` from there. */
function int8At(stride: number, row: number): number {
  return (row - (row % PANEL)) * stride + PANEL * (row % PANEL);
}
function int8Column(column: number): number {
  return (column >> 3) * 64 + (column & 7);
}

function scaleAt(scaleGroups: number, row: number, group: number): number {
  return (row - (row % PANEL)) * scaleGroups + PANEL * group + (row % PANEL);
}

function int8s(bytes: Uint8Array): Int8Array {
  return new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

function rowsIn({ rows, columns }: WeightStorage, firstRow: number, length: number): number {
  const count = length / columns;
  if (Number.isInteger(count) && firstRow >= 0 && firstRow + count <= rows) return count;
  throw new MatMambaError('SHAPE', `${length} values from row ${firstRow} of (${rows}, ${columns})`);
}

function floats(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

function halves(bytes: Uint8Array): Uint16Array {
  return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
}

/** Nearest bfloat16, ties to even; NaN stays NaN. */
function packBf16(bits: Uint32Array, from: number, count: number, target: Uint16Array, at: number): void {
  for (let i = 0; i < count; i++) {
    const b = bits[from + i]!;
    target[at + PANEL * i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
}

/** Nearest half, ties to even, held to the largest finite one. */
function packHalf(bits: Uint32Array, from: number, count: number, target: Uint16Array, at: number): void {
  for (let i = 0; i < count; i++) {
    const b = bits[from + i]!;
    const sign = (b >>> 16) & 0x8000;
    const magnitude = b & 0x7fffffff;
    if (magnitude >= 0x38800000 && magnitude < 0x477ff000) {
      const shifted = magnitude - 0x38000000;
      target[at + PANEL * i] = sign | ((shifted + 0xfff + ((shifted >>> 13) & 1)) >>> 13);
    } else target[at + PANEL * i] = sign | edgeHalf(magnitude);
  }
}

/** Halves below the smallest normal one, and above the largest. */
function edgeHalf(magnitude: number): number {
  if (magnitude >= 0x7f800000) throw new MatMambaError('WEIGHTS', `a weight is not finite; f16 holds up to ${HALF_MAX}`);
  if (magnitude >= 0x38800000) return 0x7bff;
  if (magnitude < 0x33000000) return 0;
  const shift = 126 - (magnitude >>> 23);
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const half = 1 << (shift - 1);
  const rest = mantissa & ((1 << shift) - 1);
  const rounded = mantissa >>> shift;
  return rounded + (rest > half || (rest === half && rounded & 1) ? 1 : 0);
}

/** Symmetric int8: the largest magnitude of a group is 127. A group that holds NaN or infinity dequantises to NaN. */
function packInt8(storage: WeightStorage, memory: WeightMemory, firstRow: number, rows: number, source: Float32Array): void {
  const { columns, stride, groupSize, scaleGroups } = storage;
  const target = int8s(memory.values);
  const { scales } = memory;
  for (let row = 0; row < rows; row++) {
    const from = row * columns;
    const at = int8At(stride, firstRow + row);
    for (let group = 0; group < scaleGroups; group++) {
      const first = group * groupSize;
      const end = Math.min(first + groupSize, columns);
      let largest = 0;
      let sum = 0;
      for (let i = from + first; i < from + end; i++) {
        const magnitude = Math.abs(source[i]!);
        sum += magnitude;
        largest = Math.max(largest, magnitude);
      }
      const finite = sum < Infinity;
      const scale = finite ? Math.fround(largest / 127) : NaN;
      scales[scaleAt(scaleGroups, firstRow + row, group)] = scale;
      const inverse = scale > 0 ? 1 / scale : 0;
      for (let i = first; i < end; i += 8) {
        const to = at + 8 * i;
        const count = Math.min(8, end - i);
        for (let j = 0; j < count; j++) target[to + j] = source[from + i + j]! * inverse + ROUND - ROUND;
      }
    }
    for (let i = columns; i < stride; i++) target[at + int8Column(i)] = 0;
  }
}
