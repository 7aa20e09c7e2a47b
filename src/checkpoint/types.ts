/** What a checkpoint is to its readers and writers, whatever the file format. */

import { MatMambaError } from '../errors.ts';
import { type DType, DTYPES, type Shape, bytesOf, formatShape } from '../tensor/index.ts';

export type CheckpointFormat = 'safetensors' | 'pytorch';

/** One tensor in a file: what it is, and its bytes on request. */
export interface TensorEntry {
  readonly name: string;
  /** Element type; booleans are `u8` holding 0 and 1. */
  readonly dtype: DType;
  readonly shape: Shape;
  /** Bytes of all elements, row-major and little-endian, without gaps. */
  readonly byteLength: number;
  /**
   * Bytes `byteOffset` to `byteOffset + byteLength` (default: to the end) as the caller's own, aligned copy. Read large
   * tensors in pieces of at most 16 MiB to keep memory low.
   * @throws FILE, FORMAT, ABORTED, DISPOSED
   */
  read(byteOffset?: number, byteLength?: number, signal?: AbortSignal): Promise<Uint8Array>;
}

/** An open checkpoint. Close it when its tensors have been read. */
export interface Checkpoint {
  readonly format: CheckpointFormat;
  /** Every tensor by name, in file order; a tied name has an entry of its own that reads the same bytes. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /** Tied weights: a name -> the earlier name whose storage it shares. */
  readonly aliases: ReadonlyMap<string, string>;
  readonly metadata: Readonly<Record<string, string>>;
  close(): Promise<void>;
  /** `await using checkpoint = await openCheckpoint(path)` closes it. */
  [Symbol.asyncDispose](): Promise<void>;
}

type Bytes = Uint8Array;

/** One tensor to be saved. */
export interface TensorToSave {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** The little-endian bytes, whole or in pieces; called once. */
  chunks(): Bytes | Iterable<Bytes> | AsyncIterable<Bytes>;
  /** Name of an earlier tensor of the list with the same bytes (tied weights): stored once, `chunks` is not called. */
  readonly aliasOf?: string | undefined;
}

/** Bytes of a tensor of `shape`; undefined when that is no safe whole number. */
export function byteLengthOf(dtype: DType, shape: readonly unknown[]): number | undefined {
  let size = bytesOf(dtype);
  let zero = false;
  for (const n of shape) {
    if (typeof n !== 'number' || !Number.isSafeInteger(n) || n < 0) return undefined;
    if (n === 0) zero = true;
    else size *= n;
    if (size > Number.MAX_SAFE_INTEGER) return undefined;
  }
  return zero ? 0 : size;
}

/** Checks a list before anything is written. @throws WEIGHTS, SHAPE */
export function checkTensorsToSave(tensors: readonly TensorToSave[]): void {
  const seen = new Map<string, TensorToSave>();
  for (const tensor of tensors) {
    if (seen.has(tensor.name)) throw new MatMambaError('WEIGHTS', `two tensors to save are called '${tensor.name}'`);
    if (!DTYPES.includes(tensor.dtype)) {
      throw new MatMambaError('SHAPE', `${tensor.name}: unknown dtype '${String(tensor.dtype)}'`, {
        hint: `known: ${DTYPES.join(', ')}`,
      });
    }
    if (byteLengthOf(tensor.dtype, tensor.shape) === undefined) {
      throw new MatMambaError('SHAPE', `${tensor.name}: ${formatShape(tensor.shape)} is not a shape`);
    }
    if (tensor.aliasOf !== undefined) {
      const target = seen.get(tensor.aliasOf);
      if (!target || target.aliasOf !== undefined) {
        throw new MatMambaError(
          'WEIGHTS',
          `${tensor.name} is tied to '${tensor.aliasOf}', which is not an earlier tensor with bytes of its own`,
        );
      }
      if (target.dtype !== tensor.dtype || formatShape(target.shape) !== formatShape(tensor.shape)) {
        throw new MatMambaError(
          'SHAPE',
          `${tensor.name} is tied to ${target.name}: expected ${target.dtype} ${formatShape(target.shape)}, got ${tensor.dtype} ${formatShape(tensor.shape)}`,
        );
      }
    }
    seen.set(tensor.name, tensor);
  }
}

/** The pieces of a tensor, checked to be as many bytes as its shape says. @throws SHAPE */
export async function* piecesOf(tensor: TensorToSave): AsyncGenerator<Uint8Array> {
  const expected = byteLengthOf(tensor.dtype, tensor.shape)!;
  const given = tensor.chunks();
  let total = 0;
  for await (const piece of given instanceof Uint8Array ? [given] : given) {
    total += piece.byteLength;
    if (total > expected) break;
    yield piece;
  }
  if (total !== expected) {
    const found = total > expected ? 'more' : String(total);
    throw new MatMambaError(
      'SHAPE',
      `${tensor.name}: expected ${expected} bytes for ${tensor.dtype} ${formatShape(tensor.shape)}, got ${found}`,
    );
  }
}

/** Resolves the defaults of `TensorEntry.read` and checks the range. @throws SHAPE */
export function checkPiece(
  entry: { name: string; byteLength: number },
  byteOffset = 0,
  byteLength = entry.byteLength - byteOffset,
): [number, number] {
  const whole = Number.isSafeInteger(byteOffset) && Number.isSafeInteger(byteLength);
  if (!whole || byteOffset < 0 || byteLength < 0 || byteOffset + byteLength > entry.byteLength) {
    throw new MatMambaError(
      'SHAPE',
      `${entry.name}: bytes ${byteOffset} to ${byteOffset + byteLength} are not within its ${entry.byteLength}`,
    );
  }
  return [byteOffset, byteLength];
}
