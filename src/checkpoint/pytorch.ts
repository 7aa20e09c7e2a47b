/**
 * Reads what torch.save writes: a zip of `data.pkl` (the structure) and one stored entry per storage.
 *
 * The pickle is read with an allow-list (pytorch-classes.ts), so nothing in the file can run. A contiguous tensor is a
 * positioned read of its storage; any other is gathered through a bounded window. Tensors that are the same view of one
 * storage are tied: the later name is an alias of the earlier.
 * Format: torch/serialization.py (`_save`) and caffe2/serialize/inline_container.cc.
 */

import { MatMambaError, throwIfAborted } from '../errors.ts';
import { bytesOf } from '../tensor/index.ts';
import { readPickle } from './pickle.ts';
import { type StorageRef, type TensorRef, allowedClass, storageOf } from './pytorch-classes.ts';
import { isJsonObject, parsePythonJsonBytes } from './python-json.ts';
import { type ByteSource, PIECE_BYTES, allocateBytes } from './source.ts';
import { findStateDict } from './trainer.ts';
import { type Checkpoint, type TensorEntry, byteLengthOf, checkPiece } from './types.ts';
import { type ZipEntry, crc32, readZipDirectory, zipDataOffset } from './zip.ts';

const MAX_PICKLE_BYTES = 64 * 2 ** 20;
/** A view may repeat elements of its storage (stride 0), but not blow up into more than this. */
const MAX_EXPANDED_BYTES = 256 * 2 ** 20;
/** Below this many elements a gather reads them one by one. */
const FEW_ELEMENTS = 64;

function damaged(file: string, problem: string): MatMambaError {
  return new MatMambaError('FORMAT', `${file}: ${problem}`, {
    hint: 'the file is truncated or damaged: download or save it again',
  });
}

/** A zip archive and the folder inside that torch put everything into. */
class Archive {
  readonly source: ByteSource;
  readonly #entries: ReadonlyMap<string, ZipEntry>;
  readonly #prefix: string;

  constructor(source: ByteSource, entries: ReadonlyMap<string, ZipEntry>) {
    this.source = source;
    this.#entries = entries;
    const pickles = [...entries.keys()].filter((name) => name === 'data.pkl' || name.endsWith('/data.pkl'));
    if (pickles.length !== 1) throw damaged(source.name, `it holds ${pickles.length} data.pkl, a torch checkpoint holds one`);
    this.#prefix = pickles[0]!.slice(0, -'data.pkl'.length);
    if (entries.has(`${this.#prefix}constants.pkl`)) {
      throw new MatMambaError('FORMAT', `${source.name} is a TorchScript program, not a checkpoint`, {
        hint: 'save its weights: torch.save(module.state_dict(), path)',
      });
    }
  }

  entry(name: string): ZipEntry | undefined {
    return this.#entries.get(this.#prefix + name);
  }

  /** A small entry whole, its CRC checked. @throws FORMAT */
  async read(name: string, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    const entry = this.entry(name);
    if (!entry) return undefined;
    if (entry.size > MAX_PICKLE_BYTES)
      throw damaged(this.source.name, `'${entry.name}' is ${entry.size} bytes, more than ${MAX_PICKLE_BYTES}`);
    const bytes = await this.source.read(await zipDataOffset(this.source, entry, signal), entry.size, signal);
    if (crc32(bytes) !== entry.crc32) throw damaged(this.source.name, `'${entry.name}' does not match its checksum`);
    return bytes;
  }
}

/** A storage's entry, found in the file the first time it is read. */
class Storage {
  readonly #archive: Archive;
  readonly #entry: ZipEntry;
  #start: Promise<number> | undefined;

  constructor(archive: Archive, key: string) {
    const entry = archive.entry(`data/${key}`);
    if (!entry) throw damaged(archive.source.name, `the storage '${key.slice(0, 40)}' is missing`);
    this.#archive = archive;
    this.#entry = entry;
  }

  /** Every mention of a storage tells its size; none may promise more than there is. @throws FORMAT */
  check(ref: StorageRef): void {
    const { name, size } = this.#entry;
    if (size < ref.byteLength)
      throw damaged(this.#archive.source.name, `'${name}' has ${size} bytes, its tensors need ${ref.byteLength}`);
  }

  async read(offset: number, length: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const { source } = this.#archive;
    this.#start ??= zipDataOffset(source, this.#entry).catch((error: unknown) => {
      this.#start = undefined;
      throw error;
    });
    return source.read((await this.#start) + offset, length, signal);
  }
}

/** Row-major without gaps; axes of one element may have any stride. */
function isContiguous({ shape, strides }: TensorRef): boolean {
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false;
    expected *= shape[i]!;
  }
  return true;
}

/** Calls `visit(position, source)` for elements `first` to `last` (exclusive) in row-major order. */
function forEachElement(ref: TensorRef, first: number, last: number, visit: (position: number, source: number) => void): void {
  const { shape, strides } = ref;
  const index = shape.map(() => 0);
  let source = ref.offset;
  for (let axis = shape.length - 1, rest = first; axis >= 0; axis--) {
    index[axis] = rest % shape[axis]!;
    rest = Math.floor(rest / shape[axis]!);
    source += index[axis]! * strides[axis]!;
  }
  for (let position = first; position < last; position++) {
    visit(position, source);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis]!++;
      source += strides[axis]!;
      if (index[axis]! < shape[axis]!) break;
      source -= index[axis]! * strides[axis]!;
      index[axis] = 0;
    }
  }
}

/** Bytes `from` to `from + length` of a strided tensor, through windows of at most 16 MiB of its storage. */
async function gather(
  ref: TensorRef,
  storage: Storage,
  from: number,
  length: number,
  name: string,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const size = bytesOf(ref.dtype);
  const first = Math.floor(from / size);
  const last = Math.ceil((from + length) / size);
  const out = allocateBytes((last - first) * size, name);
  const copy = (window: Uint8Array, windowStart: number, position: number, source: number): void => {
    const at = (source - windowStart) * size;
    for (let k = 0; k < size; k++) out[(position - first) * size + k] = window[at + k]!;
  };
  if (last - first <= FEW_ELEMENTS) {
    const wanted: Array<[number, number]> = [];
    forEachElement(ref, first, last, (position, source) => wanted.push([position, source]));
    for (const [position, source] of wanted) copy(await storage.read(source * size, size, signal), source, position, source);
  } else {
    let low = Infinity;
    let high = 0;
    forEachElement(ref, first, last, (_position, source) => {
      low = Math.min(low, source);
      high = Math.max(high, source + 1);
    });
    const step = PIECE_BYTES / size;
    for (let start = low; start < high; start += step) {
      throwIfAborted(signal);
      const end = Math.min(high, start + step);
      const window = await storage.read(start * size, (end - start) * size, signal);
      forEachElement(ref, first, last, (position, source) => {
        if (source >= start && source < end) copy(window, start, position, source);
      });
    }
  }
  const skip = from - first * size;
  return skip === 0 && out.byteLength === length ? out : out.slice(skip, skip + length);
}

function makeEntry(name: string, ref: TensorRef, storage: Storage, file: string): TensorEntry {
  const { dtype, shape } = ref;
  const byteLength = byteLengthOf(dtype, shape)!;
  const contiguous = byteLength === 0 || isContiguous(ref);
  if (!contiguous && byteLength > ref.storage.byteLength && byteLength > MAX_EXPANDED_BYTES) {
    throw damaged(file, `'${name}' blows ${ref.storage.byteLength} bytes up to ${byteLength}`);
  }
  const entry: TensorEntry = {
    name,
    dtype,
    shape,
    byteLength,
    async read(byteOffset, length, signal) {
      const [from, bytes] = checkPiece(entry, byteOffset, length);
      throwIfAborted(signal);
      if (bytes === 0) return new Uint8Array(0);
      return contiguous
        ? storage.read(ref.offset * bytesOf(dtype) + from, bytes, signal)
        : gather(ref, storage, from, bytes, name, signal);
    },
  };
  return entry;
}

/** Strings saved beside the tensors by our own writer (torch ignores the entry). */
async function readExtra(archive: Archive, signal?: AbortSignal): Promise<Record<string, string>> {
  const bytes = await archive.read('extra/metadata.json', signal);
  const value = bytes && parsePythonJsonBytes(bytes, { name: `extra/metadata.json of ${archive.source.name}` });
  const result: Record<string, string> = Object.create(null);
  if (!isJsonObject(value)) return result;
  for (const [key, item] of Object.entries(value)) if (typeof item === 'string') result[key] = item;
  return result;
}

/**
 * Opens a checkpoint that torch.save (1.6 or later) wrote: a state dict, or a trainer's checkpoint that holds one.
 * Closing the checkpoint closes the source.
 * @throws UNSAFE when the pickle asks for anything but tensors and plain data; FORMAT
 */
export async function openPytorch(source: ByteSource, signal?: AbortSignal): Promise<Checkpoint> {
  const archive = new Archive(source, await readZipDirectory(source, signal));
  const byteOrder = await archive.read('byteorder', signal);
  if (byteOrder && new TextDecoder().decode(byteOrder).trim() !== 'little') {
    throw new MatMambaError('FORMAT', `${source.name} was saved on a big-endian machine`, {
      hint: 'load and save it again on another',
    });
  }
  const pickle = await archive.read('data.pkl', signal);
  const root = readPickle(pickle!, {
    name: `data.pkl of ${source.name}`,
    classOf: allowedClass,
    persistent: storageOf,
  });
  const { tensors, metadata } = findStateDict(root, source.name);

  const storages = new Map<string, Storage>();
  const entries = new Map<string, TensorEntry>();
  const aliases = new Map<string, string>();
  const views = new Map<string, string>();
  for (const [name, ref] of tensors) {
    let storage = storages.get(ref.storage.key);
    if (!storage) storages.set(ref.storage.key, (storage = new Storage(archive, ref.storage.key)));
    storage.check(ref.storage);
    const entry = makeEntry(name, ref, storage, source.name);
    entries.set(name, entry);
    if (entry.byteLength === 0) continue;
    const view = JSON.stringify([ref.storage.key, ref.dtype, ref.offset, ref.shape, ref.strides]);
    const earlier = views.get(view);
    if (earlier === undefined) views.set(view, name);
    else aliases.set(name, earlier);
  }
  Object.assign(metadata, await readExtra(archive, signal));
  const close = (): Promise<void> => source.close();
  return { format: 'pytorch', entries, aliases, metadata, close, [Symbol.asyncDispose]: close };
}
