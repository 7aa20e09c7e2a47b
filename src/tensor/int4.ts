/**
 * Matrices in 4 bits: whole numbers from -8 to 7 (two's complement), two to a byte with the first in the low half, rows
 * of ceil(columns / 2) bytes, and a float32 scale for every group of columns of a row.
 */

/** Columns that share a scale where nothing else is asked for. */
export const INT4_GROUP = 32;
/** The group sizes that files may have. */
export const INT4_GROUPS: readonly number[] = [32, 64];

const LOWEST = -8;
const HIGHEST = 7;
/** value + this - this rounds a float64 of moderate size to the nearest whole number, ties to even. */
const ROUND = 1.5 * 2 ** 52;

/** Bytes of a row. */
export function int4RowBytes(columns: number): number {
  return Math.ceil(columns / 2);
}

/** Rows of whole numbers, packed. */
export function packInt4(values: Int8Array, columns: number): Uint8Array<ArrayBuffer> {
  const rowBytes = int4RowBytes(columns);
  const rows = values.length / columns;
  const packed = new Uint8Array(rows * rowBytes);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) {
      packed[row * rowBytes + (i >> 1)]! |= (values[row * columns + i]! & 15) << (4 * (i & 1));
    }
  }
  return packed;
}

/** Rows of whole numbers from packed ones that begin `rowBytes` bytes apart. */
export function unpackInt4(packed: Uint8Array, columns: number, rowBytes = int4RowBytes(columns)): Int8Array<ArrayBuffer> {
  const rows = packed.length / rowBytes;
  const values = new Int8Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) {
      values[row * columns + i] = (packed[row * rowBytes + (i >> 1)]! << (28 - 4 * (i & 1))) >> 28;
    }
  }
  return values;
}

/** Whole numbers times their scales; `groups` scales a row. */
export function dequantise(
  values: Int8Array,
  scales: Float32Array,
  columns: number,
  groupSize: number,
  groups: number,
): Float32Array<ArrayBuffer> {
  const floats = new Float32Array(values.length);
  const rows = values.length / columns;
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const scale = scales[row * groups + group]!;
      const end = row * columns + Math.min((group + 1) * groupSize, columns);
      for (let i = row * columns + group * groupSize; i < end; i++) floats[i] = values[i]! * scale;
    }
  }
  return floats;
}

/**
 * Rows quantised by groups. The number of the largest magnitude becomes -8 (its scale may be negative) or, where that
 * holds the group closer, 7 or -7. Groups that are not finite get the scale NaN.
 */
export function quantiseInt4(
  floats: Float32Array,
  columns: number,
  groupSize = INT4_GROUP,
): { values: Int8Array<ArrayBuffer>; scales: Float32Array<ArrayBuffer> } {
  const rows = floats.length / columns;
  const groups = Math.ceil(columns / groupSize);
  const values = new Int8Array(floats.length);
  const scales = new Float32Array(rows * groups);
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const start = row * columns + group * groupSize;
      const end = Math.min(start + groupSize, (row + 1) * columns);
      const scale = scaleOf(floats, start, end);
      scales[row * groups + group] = scale;
      const inverse = Number.isFinite(scale) && scale !== 0 ? 1 / scale : 0;
      for (let i = start; i < end; i++) values[i] = nearest(floats[i]! * inverse);
    }
  }
  return { values, scales };
}

function nearest(value: number): number {
  return Math.min(Math.max(value + ROUND - ROUND, LOWEST), HIGHEST);
}

function scaleOf(values: Float32Array, start: number, end: number): number {
  let sum = 0;
  let extreme = 0;
  for (let i = start; i < end; i++) {
    const value = values[i]!;
    sum += Math.abs(value);
    if (Math.abs(value) > Math.abs(extreme)) extreme = value;
  }
  if (!(sum < Infinity)) return NaN;
  if (extreme === 0) return 0;
  const wide = Math.fround(extreme / LOWEST);
  const even = Math.fround(Math.abs(extreme) / HIGHEST);
  return squaredError(values, start, end, wide) <= squaredError(values, start, end, even) ? wide : even;
}

function squaredError(values: Float32Array, start: number, end: number, scale: number): number {
  const inverse = scale === 0 ? 0 : 1 / scale;
  let sum = 0;
  for (let i = start; i < end; i++) sum += (nearest(values[i]! * inverse) * scale - values[i]!) ** 2;
  return sum;
}
