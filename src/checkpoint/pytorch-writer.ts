/**
 * Writes `pytorch_model.bin` so that torch.load reads it, `weights_only=True` included: an OrderedDict of
 * `_rebuild_tensor_v2` in protocol 2, one stored and 64-byte aligned zip entry per storage, tied names on one storage,
 * then `version` and `.data/serialization_id`.
 *
 * Strings for the reader of this project go to `extra/metadata.json`, which torch ignores.
 */

import { type DType, bytesOf, sizeOf } from '../tensor/index.ts';
import type { AtomicFile } from './atomic-file.ts';
import { STORAGE_OF } from './pytorch-classes.ts';
import { formatPythonJson } from './python-json.ts';
import { type TensorToSave, byteLengthOf, piecesOf } from './types.ts';
import { ZipWriter, crc32 } from './zip.ts';

const encoder = new TextEncoder();

/** The few opcodes a state dict needs. Globals and repeated strings are memoised, as torch does. */
class PickleWriter {
  readonly #bytes: number[] = [];
  readonly #memo = new Map<string, number>();

  op(...bytes: number[]): void {
    this.#bytes.push(...bytes);
  }

  #uint32(value: number): void {
    this.op(value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24);
  }

  /** Writes `emit` the first time and recalls it afterwards. */
  #once(key: string, emit: () => void): void {
    const known = this.#memo.get(key);
    const index = known ?? this.#memo.size;
    if (known === undefined) {
      emit();
      this.#memo.set(key, index);
    }
    if (index < 256) this.op(known === undefined ? 0x71 : 0x68, index);
    else {
      this.op(known === undefined ? 0x72 : 0x6a);
      this.#uint32(index);
    }
  }

  global(module: string, name: string): void {
    this.#once(`global ${module}.${name}`, () => {
      this.op(0x63);
      for (const byte of encoder.encode(`${module}\n${name}\n`)) this.op(byte);
    });
  }

  string(value: string): void {
    this.#once(`string ${value}`, () => {
      const bytes = encoder.encode(value);
      this.op(0x58);
      this.#uint32(bytes.length);
      for (const byte of bytes) this.op(byte);
    });
  }

  /** A whole number of at least 0. */
  integer(value: number): void {
    if (value < 256) this.op(0x4b, value);
    else if (value < 65536) this.op(0x4d, value & 255, value >>> 8);
    else if (value < 2 ** 31) {
      this.op(0x4a);
      this.#uint32(value);
    } else {
      this.op(0x8a, 8);
      this.#uint32(value % 2 ** 32);
      this.#uint32(Math.floor(value / 2 ** 32));
    }
  }

  integers(values: readonly number[]): void {
    this.op(0x28);
    for (const value of values) this.integer(value);
    this.op(0x74);
  }

  finish(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }
}

function stridesOf(shape: readonly number[]): number[] {
  const strides: number[] = [];
  for (let i = shape.length - 1, step = 1; i >= 0; i--) {
    strides.unshift(step);
    step *= Math.max(1, shape[i]!);
  }
  return strides;
}

const TORCH_DTYPE: Partial<Record<DType, string>> = { u16: 'uint16', u32: 'uint32' };

/** `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`; v3 adds the dtype of an untyped storage. */
function pickleTensor(out: PickleWriter, tensor: TensorToSave, key: number): void {
  const { dtype, shape } = tensor;
  const typed = STORAGE_OF[dtype];
  out.global('torch._utils', typed === undefined ? '_rebuild_tensor_v3' : '_rebuild_tensor_v2');
  out.op(0x28, 0x28);
  out.string('storage');
  if (typed === undefined) out.global('torch.storage', 'UntypedStorage');
  else out.global('torch', typed);
  out.string(String(key));
  out.string('cpu');
  out.integer(typed === undefined ? sizeOf(shape) * bytesOf(dtype) : sizeOf(shape));
  out.op(0x74, 0x51); // TUPLE, BINPERSID
  out.integer(0);
  out.integers(shape);
  out.integers(stridesOf(shape));
  out.op(0x89); // requires_grad False
  emptyOrderedDict(out);
  if (typed === undefined) out.global('torch', TORCH_DTYPE[dtype]!);
  out.op(0x74, 0x52); // TUPLE, REDUCE
}

function emptyOrderedDict(out: PickleWriter): void {
  out.global('collections', 'OrderedDict');
  out.op(0x29, 0x52); // EMPTY_TUPLE, REDUCE
}

/** Names -> storage keys; a tied name has its target's. */
function storageKeys(tensors: readonly TensorToSave[]): Map<string, number> {
  const keys = new Map<string, number>();
  let next = 0;
  for (const tensor of tensors) keys.set(tensor.name, tensor.aliasOf === undefined ? next++ : keys.get(tensor.aliasOf)!);
  return keys;
}

function pickleStateDict(tensors: readonly TensorToSave[], keys: ReadonlyMap<string, number>): Uint8Array {
  const out = new PickleWriter();
  out.op(0x80, 2);
  emptyOrderedDict(out);
  if (tensors.length > 0) {
    out.op(0x28);
    for (const tensor of tensors) {
      out.string(tensor.name);
      pickleTensor(out, tensor, keys.get(tensor.name)!);
    }
    out.op(0x75); // SETITEMS
  }
  out.op(0x2e);
  return out.finish();
}

/** 40 digits that identify the content, from names and checksums, so the same weights give the same file. */
function serializationId(writer: ZipWriter): string {
  let names = 0;
  let sums = 0;
  for (const { name, crc32: sum } of writer.entries) {
    names = crc32(encoder.encode(name), names);
    sums = crc32(encoder.encode(String(sum)), sums);
  }
  return String(names).padStart(20, '0') + String(sums).padStart(20, '0');
}

/**
 * Writes tensors (checked by `checkTensorsToSave`) to a new file, each as it is produced. `prefix` is the folder inside
 * the archive, by torch's habit the file's name without its ending.
 * @throws FILE, SHAPE
 */
export async function writePytorch(
  file: AtomicFile,
  tensors: readonly TensorToSave[],
  metadata: Readonly<Record<string, string>>,
  prefix: string,
): Promise<void> {
  const zip = new ZipWriter(file);
  const add = (name: string, bytes: Uint8Array): Promise<void> => zip.add(`${prefix}/${name}`, bytes.byteLength, [bytes]);
  const keys = storageKeys(tensors);
  await add('data.pkl', pickleStateDict(tensors, keys));
  await add('byteorder', encoder.encode('little'));
  for (const tensor of tensors) {
    if (tensor.aliasOf !== undefined) continue;
    await zip.add(`${prefix}/data/${keys.get(tensor.name)!}`, byteLengthOf(tensor.dtype, tensor.shape)!, piecesOf(tensor));
  }
  if (Object.keys(metadata).length > 0) await add('extra/metadata.json', encoder.encode(formatPythonJson(metadata)));
  await add('version', encoder.encode('3\n'));
  await add('.data/serialization_id', encoder.encode(serializationId(zip)));
  await zip.end();
}
