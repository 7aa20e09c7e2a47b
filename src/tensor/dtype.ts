/** Element types of host tensors: their sizes, their typed arrays, and how each becomes float32 and back. */

import { MatMambaError } from '../errors.ts';

export const DTYPES = ['f64', 'f32', 'bf16', 'f16', 'i64', 'i32', 'i16', 'i8', 'u8', 'u16', 'u32'] as const;
export type DType = (typeof DTYPES)[number];

export type TypedArray =
  | Float64Array
  | Float32Array
  | BigInt64Array
  | Int32Array
  | Int16Array
  | Int8Array
  | Uint8Array
  | Uint16Array
  | Uint32Array;

type ArrayOf = {
  f64: Float64Array;
  f32: Float32Array;
  bf16: Uint16Array;
  f16: Uint16Array;
  i64: BigInt64Array;
  i32: Int32Array;
  i16: Int16Array;
  i8: Int8Array;
  u8: Uint8Array;
  u16: Uint16Array;
  u32: Uint32Array;
};

const CONSTRUCTORS = {
  f64: Float64Array,
  f32: Float32Array,
  bf16: Uint16Array,
  f16: Uint16Array,
  i64: BigInt64Array,
  i32: Int32Array,
  i16: Int16Array,
  i8: Int8Array,
  u8: Uint8Array,
  u16: Uint16Array,
  u32: Uint32Array,
} as const;

/** Bytes of one element. */
export function bytesOf(dtype: DType): number {
  return CONSTRUCTORS[dtype].BYTES_PER_ELEMENT;
}

/** The dtype a typed array stands for (a `Uint16Array` is u16; bf16 and f16 are named by hand). */
export function dtypeOfArray(array: TypedArray): DType {
  for (const dtype of DTYPES) {
    if (dtype === 'bf16' || dtype === 'f16') continue;
    if (array instanceof CONSTRUCTORS[dtype]) return dtype;
  }
  throw new MatMambaError('SHAPE', `no tensor dtype for ${Object.prototype.toString.call(array)}`);
}

/** A typed view of `bytes`; copied first when the bytes are not aligned to the element size. */
export function viewAs<D extends DType>(dtype: D, bytes: Uint8Array): ArrayOf[D] {
  const size = bytesOf(dtype);
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return new CONSTRUCTORS[dtype](aligned.buffer as ArrayBuffer, aligned.byteOffset, aligned.byteLength / size) as ArrayOf[D];
}

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

/** float32 -> bfloat16 bits, rounding to nearest even; NaN stays NaN. */
export function floatToBf16(value: number): number {
  scratchFloat[0] = value;
  const bits = scratchBits[0]!;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** bfloat16 bits -> float32. */
export function bf16ToFloat(bits: number): number {
  scratchBits[0] = bits << 16;
  return scratchFloat[0]!;
}

/** float32 -> IEEE half bits, rounding to nearest even; overflow becomes infinity. */
export function floatToF16(value: number): number {
  scratchFloat[0] = value;
  const bits = scratchBits[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x33000000) return sign;
  if (magnitude < 0x38800000) {
    const shift = 126 - (magnitude >>> 23);
    const mantissa = (magnitude & 0x7fffff) | 0x800000;
    const half = 1 << (shift - 1);
    const rest = mantissa & ((1 << shift) - 1);
    const rounded = mantissa >>> shift;
    return sign | (rounded + (rest > half || (rest === half && rounded & 1) ? 1 : 0));
  }
  const shifted = magnitude - 0x38000000;
  return sign | ((shifted + 0xfff + ((shifted >>> 13) & 1)) >>> 13);
}

/** IEEE half bits -> float32. */
export function f16ToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

let halfTable: Float32Array | undefined;

/** Converts `source` (elements of `dtype`) to float32 into `target`, which must have the same length. */
export function toFloat32(dtype: DType, source: TypedArray, target: Float32Array): void {
  if (dtype === 'bf16') {
    const bits = new Uint32Array(target.buffer, target.byteOffset, target.length);
    const from = source as Uint16Array;
    for (let i = 0; i < from.length; i++) bits[i] = from[i]! << 16;
  } else if (dtype === 'f16') {
    halfTable ??= Float32Array.from({ length: 65536 }, (_, i) => f16ToFloat(i));
    const from = source as Uint16Array;
    for (let i = 0; i < from.length; i++) target[i] = halfTable[from[i]!]!;
  } else if (dtype === 'i64') {
    const from = source as BigInt64Array;
    for (let i = 0; i < from.length; i++) target[i] = Number(from[i]);
  } else {
    target.set(source as Float32Array);
  }
}

/** Converts float32 values to elements of `dtype`; integers are truncated as typed arrays do. */
export function fromFloat32<D extends DType>(dtype: D, source: Float32Array): ArrayOf[D] {
  const target = new CONSTRUCTORS[dtype](source.length) as TypedArray;
  if (dtype === 'bf16') {
    const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
    const to = target as Uint16Array;
    for (let i = 0; i < bits.length; i++) {
      const b = bits[i]!;
      to[i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
    }
  } else if (dtype === 'f16') {
    const to = target as Uint16Array;
    for (let i = 0; i < source.length; i++) to[i] = floatToF16(source[i]!);
  } else if (dtype === 'i64') {
    const to = target as BigInt64Array;
    for (let i = 0; i < source.length; i++) to[i] = BigInt(Math.trunc(source[i]!));
  } else {
    (target as Float32Array).set(source);
  }
  return target as ArrayOf[D];
}
