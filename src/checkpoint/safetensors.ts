/**
 * The safetensors format: u64 header length | JSON header | raw tensors. Reads lazily, writes in one pass.
 *
 * Invariants: a header is believed only after every range was checked to lie inside the file, to overlap no other and
 * to hold exactly what shape and dtype say. Written files have 8-byte aligned data, largest elements first, so that
 * every tensor is aligned; a tied tensor is stored once and named in the metadata (`name -> stored name`), which is
 * where the reference implementation's `save_model` puts it too.
 * Format: https://huggingface.co/docs/safetensors
 */

import { MatMambaError } from '../errors.ts';
import { type DType, bytesOf, formatShape } from '../tensor/index.ts';
import type { AtomicFile } from './atomic-file.ts';
import { type JsonValue, isJsonObject, parsePythonJsonBytes } from './python-json.ts';
import type { ByteSource } from './source.ts';
import { type Checkpoint, type TensorEntry, type TensorToSave, byteLengthOf, checkPiece, piecesOf } from './types.ts';

const MAX_HEADER_BYTES = 100_000_000;

const DTYPE_OF: ReadonlyMap<string, DType> = new Map([
  ['F64', 'f64'],
  ['F32', 'f32'],
  ['BF16', 'bf16'],
  ['F16', 'f16'],
  ['I64', 'i64'],
  ['I32', 'i32'],
  ['I16', 'i16'],
  ['I8', 'i8'],
  ['U8', 'u8'],
  ['U16', 'u16'],
  ['U32', 'u32'],
  ['BOOL', 'u8'],
]);

interface Range {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
}

function damaged(
  file: string,
  problem: string,
  hint = 'the file is truncated or damaged: download or save it again',
): MatMambaError {
  return new MatMambaError('FORMAT', `${file}: ${problem}`, { hint });
}

/** Length of the JSON header. @throws FORMAT */
async function readHeaderLength(source: ByteSource, signal?: AbortSignal): Promise<number> {
  if (source.size < 8) throw damaged(source.name, `a safetensors file has at least 8 bytes, this one ${source.size}`);
  const start = await source.read(0, 8, signal);
  const length = Number(new DataView(start.buffer, start.byteOffset, 8).getBigUint64(0, true));
  if (length > MAX_HEADER_BYTES) {
    throw damaged(
      source.name,
      `its header would be ${length} bytes, more than ${MAX_HEADER_BYTES}`,
      'this is not a safetensors file',
    );
  }
  if (8 + length > source.size) {
    throw damaged(source.name, `its header ends at byte ${8 + length}, the file at byte ${source.size}`);
  }
  return length;
}

function readMetadata(file: string, value: JsonValue): Record<string, string> {
  if (!isJsonObject(value)) throw damaged(file, '__metadata__ is not an object');
  for (const [key, item] of Object.entries(value)) {
    if (typeof item !== 'string') throw damaged(file, `__metadata__['${key}'] is not a string`);
  }
  return value as Record<string, string>;
}

function readInfo(source: ByteSource, name: string, info: JsonValue, dataStart: number): { entry: TensorEntry; range: Range } {
  const file = source.name;
  if (!isJsonObject(info)) throw damaged(file, `the header's '${name}' is not an object`);
  const { dtype: code, shape, data_offsets: offsets } = info;
  const dtype = typeof code === 'string' ? DTYPE_OF.get(code) : undefined;
  if (typeof code !== 'string' || dtype === undefined) {
    throw damaged(file, `'${name}' has the dtype ${JSON.stringify(code)}`, `supported: ${[...DTYPE_OF.keys()].join(', ')}`);
  }
  if (!Array.isArray(shape) || shape.length > 32) throw damaged(file, `'${name}' has no shape`);
  const byteLength = byteLengthOf(dtype, shape);
  if (byteLength === undefined) throw damaged(file, `'${name}' has the shape (${shape.map(String).join(', ')})`);
  const [begin, end] = Array.isArray(offsets) && offsets.length === 2 ? offsets : [];
  if (!Number.isSafeInteger(begin) || !Number.isSafeInteger(end)) throw damaged(file, `'${name}' has no data_offsets`);
  const range = { name, begin: begin as number, end: end as number };
  if (range.begin < 0 || range.end < range.begin || dataStart + range.end > source.size) {
    const space = source.size - dataStart;
    throw damaged(file, `'${name}' lies at bytes ${range.begin} to ${range.end} of ${space} bytes of data`);
  }
  if (range.end - range.begin !== byteLength) {
    throw damaged(
      file,
      `'${name}' is ${code} ${formatShape(shape as number[])} = ${byteLength} bytes, but its range holds ${range.end - range.begin}`,
    );
  }
  const entry: TensorEntry = {
    name,
    dtype,
    shape: Object.freeze(shape.slice() as number[]),
    byteLength,
    async read(byteOffset, length, signal) {
      const [from, bytes] = checkPiece(entry, byteOffset, length);
      return source.read(dataStart + range.begin + from, bytes, signal);
    },
  };
  return { entry, range };
}

/**
 * Opens a safetensors file; closing the checkpoint closes the source.
 * @throws FORMAT when header and file do not agree
 */
export async function openSafetensors(source: ByteSource, signal?: AbortSignal): Promise<Checkpoint> {
  const headerLength = await readHeaderLength(source, signal);
  const text = await source.read(8, headerLength, signal);
  const header = parsePythonJsonBytes(text, { name: `the header of ${source.name}`, uniqueKeys: true });
  if (!isJsonObject(header)) throw damaged(source.name, 'its header is not a JSON object');

  const entries = new Map<string, TensorEntry>();
  const ranges: Range[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(header)) {
    if (name === '__metadata__') {
      metadata = readMetadata(source.name, value);
      continue;
    }
    const { entry, range } = readInfo(source, name, value, 8 + headerLength);
    entries.set(name, entry);
    if (range.end > range.begin) ranges.push(range);
  }

  ranges.sort((a, b) => a.begin - b.begin);
  for (let i = 1; i < ranges.length; i++) {
    if (ranges[i]!.begin < ranges[i - 1]!.end)
      throw damaged(source.name, `'${ranges[i - 1]!.name}' and '${ranges[i]!.name}' overlap`);
  }

  const aliases = new Map<string, string>();
  for (const [name, target] of Object.entries(metadata)) {
    const stored = entries.get(target);
    if (stored && !entries.has(name)) aliases.set(name, target);
  }
  for (const [name, target] of aliases) entries.set(name, aliasEntry(name, entries.get(target)!));
  const close = (): Promise<void> => source.close();
  return { format: 'safetensors', entries, aliases, metadata, close, [Symbol.asyncDispose]: close };
}

/** An entry that reads another's bytes under a second name. */
export function aliasEntry(name: string, target: TensorEntry): TensorEntry {
  const { dtype, shape, byteLength } = target;
  return { name, dtype, shape, byteLength, read: (...range) => target.read(...range) };
}

/** dtype -> the format's name for it. */
export function safetensorsDType(dtype: DType): string {
  return dtype.toUpperCase();
}

/**
 * Writes tensors (checked by `checkTensorsToSave`) to a new file, each as it is produced.
 * @throws FILE, SHAPE, WEIGHTS
 */
export async function writeSafetensors(
  file: Pick<AtomicFile, 'write'>,
  tensors: readonly TensorToSave[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const stored = tensors.filter((tensor) => tensor.aliasOf === undefined).sort((a, b) => bytesOf(b.dtype) - bytesOf(a.dtype));
  const notes = new Map(Object.entries(metadata));
  for (const tensor of tensors) {
    if (tensor.name === '__metadata__')
      throw new MatMambaError('WEIGHTS', "safetensors cannot hold a tensor called '__metadata__'");
    if (tensor.aliasOf !== undefined) notes.set(tensor.name, tensor.aliasOf);
  }
  // Built from pairs as text: an object would lose the order of names that look like numbers, and `__proto__`.
  const pairs: string[] = [];
  if (notes.size > 0) {
    const items = [...notes].map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
    pairs.push(`"__metadata__":{${items.join(',')}}`);
  }
  let offset = 0;
  for (const tensor of stored) {
    const end = offset + byteLengthOf(tensor.dtype, tensor.shape)!;
    const info = { dtype: safetensorsDType(tensor.dtype), shape: tensor.shape, data_offsets: [offset, end] };
    pairs.push(`${JSON.stringify(tensor.name)}:${JSON.stringify(info)}`);
    offset = end;
  }
  const json = new TextEncoder().encode(`{${pairs.join(',')}}`);
  const padded = Math.ceil(json.byteLength / 8) * 8;
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, 8);
  await file.write(header);
  for (const tensor of stored) {
    for await (const piece of piecesOf(tensor)) await file.write(piece);
  }
}
