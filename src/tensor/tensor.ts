/** Host tensors: a shape, an element type and row-major bytes. What calls take and return. */

import { MatMambaError } from '../errors.ts';
import { type DType, type TypedArray, bytesOf, dtypeOfArray, fromFloat32, toFloat32, viewAs } from './dtype.ts';

export type Shape = readonly number[];

/** Number of elements of a shape. */
export function sizeOf(shape: Shape): number {
  return shape.reduce((size, n) => size * n, 1);
}

/** `(2, 8, 256)`, as errors show shapes. */
export function formatShape(shape: Shape): string {
  return `(${shape.join(', ')})`;
}

function checkArray(array: TypedArray, shape: Shape, dtype: DType): void {
  if (array.length !== sizeOf(shape)) {
    throw new MatMambaError('SHAPE', `${array.length} elements do not fill the shape ${formatShape(shape)}`);
  }
  if (array.BYTES_PER_ELEMENT !== bytesOf(dtype)) {
    throw new MatMambaError(
      'SHAPE',
      `dtype ${dtype} has ${bytesOf(dtype)} bytes an element, the array ${array.BYTES_PER_ELEMENT}`,
    );
  }
}

/** Gives a tensor's elements, at once or later. */
type Fetch = () => TypedArray | Promise<TypedArray>;

/** A row-major array in host memory. The caller owns it; `dispose()` lets go of the bytes early. */
export class Tensor {
  readonly shape: Shape;
  readonly dtype: DType;
  #array: TypedArray | Fetch | undefined;

  /** `array` may be a function that fetches the elements when they are first asked for; those that come later, by `data()`. */
  constructor(array: TypedArray | Fetch, shape: Shape, dtype: DType) {
    if (shape.some((n) => !Number.isInteger(n) || n < 0)) {
      throw new MatMambaError('SHAPE', `a shape holds whole numbers of at least 0, got ${formatShape(shape)}`);
    }
    if (typeof array !== 'function') checkArray(array, shape, dtype);
    this.shape = Object.freeze([...shape]);
    this.dtype = dtype;
    this.#array = array;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** The elements now, without a copy (bf16 and f16 as their bits). @throws DISPOSED; DEVICE when they only come later */
  get array(): TypedArray {
    const array = this.#fetched();
    if (!(array instanceof Promise)) return array;
    array.catch(() => {});
    throw new MatMambaError('DEVICE', 'these elements lie on a device that only gives them later', {
      hint: 'call `await tensor.data()` first',
    });
  }

  /** The raw bytes, without a copy. @throws DISPOSED */
  get bytes(): Uint8Array {
    const { array } = this;
    return new Uint8Array(array.buffer as ArrayBuffer, array.byteOffset, array.byteLength);
  }

  /** The elements (bf16 and f16 as their bits). @throws DISPOSED */
  async data(): Promise<TypedArray> {
    return this.#fetched();
  }

  /** The elements as float32; a copy unless they are float32 already. @throws DISPOSED */
  toFloat32(): Float32Array {
    const { array } = this;
    if (array instanceof Float32Array) return array;
    const floats = new Float32Array(array.length);
    toFloat32(this.dtype, array, floats);
    return floats;
  }

  /** The same values with another element type. */
  to(dtype: DType): Tensor {
    return dtype === this.dtype ? this : new Tensor(fromFloat32(dtype, this.toFloat32()), this.shape, dtype);
  }

  dispose(): void {
    this.#array = undefined;
  }

  #fetched(): TypedArray | Promise<TypedArray> {
    const array = this.#array;
    if (!array) throw new MatMambaError('DISPOSED', 'this tensor was disposed');
    if (typeof array !== 'function') return array;
    const keep = (fetched: TypedArray): TypedArray => {
      checkArray(fetched, this.shape, this.dtype);
      if (this.#array === array) this.#array = fetched;
      return fetched;
    };
    const fetched = array();
    return fetched instanceof Promise ? fetched.then(keep) : keep(fetched);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Makes a tensor of a typed array; the dtype is the array's unless named (bf16 and f16 come as `Uint16Array` bits).
 * @throws SHAPE when the number of elements is not the shape's
 */
export function tensor(array: TypedArray | readonly number[], shape?: Shape, dtype?: DType): Tensor {
  const data = Array.isArray(array) ? fromFloat32(dtype ?? 'f32', Float32Array.from(array)) : (array as TypedArray);
  return new Tensor(data, shape ?? [data.length], dtype ?? dtypeOfArray(data));
}

/** A tensor over raw little-endian bytes, as files hold them. */
export function tensorFromBytes(bytes: Uint8Array, shape: Shape, dtype: DType): Tensor {
  return new Tensor(viewAs(dtype, bytes), shape, dtype);
}
