/**
 * Opens a checkpoint, whatever it is: a folder with weights under the usual names, one file, or shards with an index.
 *
 * A file's format is told by its first bytes, not by its name. A folder's files are looked for in the order of
 * layout.ts. Shards look like one checkpoint; the index decides which shard a name is read from.
 */

import { MatMambaError, throwIfAborted } from '../errors.ts';
import { errnoOf, fileError } from './file-errors.ts';
import { LAYOUTS, type WeightsLayout, isPlainFileName } from './layout.ts';
import { readPickle } from './pickle.ts';
import { allowedClass, storageOf } from './pytorch-classes.ts';
import { openPytorch } from './pytorch.ts';
import { type JsonObject, isJsonObject, parsePythonJsonBytes } from './python-json.ts';
import { aliasEntry, openSafetensors } from './safetensors.ts';
import { type ByteSource, fileSource } from './source.ts';
import type { Checkpoint, TensorEntry } from './types.ts';

const MAX_INDEX_BYTES = 100 * 2 ** 20;

export interface OpenCheckpointOptions {
  readonly signal?: AbortSignal | undefined;
}

function startsWith(bytes: Uint8Array, ...start: number[]): boolean {
  return start.every((byte, i) => bytes[i] === byte);
}

/** Whether bytes start as a pickle without an archive does: with its protocol, or at once with a class's name. */
function isPickle(start: Uint8Array): boolean {
  return (start[0] === 0x80 && start[1]! >= 2 && start[1]! <= 5) || /^c[\w.]+\n/.test(new TextDecoder().decode(start));
}

/** The error for a pickle without an archive; when it names something dangerous, that is the error. */
async function refuseBarePickle(source: ByteSource, signal?: AbortSignal): Promise<MatMambaError> {
  const bytes = await source.read(0, Math.min(source.size, 2 ** 20), signal);
  try {
    readPickle(bytes, { name: source.name, classOf: allowedClass, persistent: storageOf });
  } catch (error) {
    if (error instanceof MatMambaError && error.code === 'UNSAFE') return error;
  }
  return new MatMambaError('FORMAT', `${source.name} is a bare pickle, as torch before 1.6 wrote them`, {
    hint: 'save it again with a newer torch: torch.save(torch.load(path), new_path)',
  });
}

/**
 * Opens a checkpoint from any bytes (a browser's File, memory, a file). The checkpoint closes the source, also on failure.
 * @throws FORMAT, UNSAFE, ABORTED
 */
export async function openCheckpointSource(source: ByteSource, options: OpenCheckpointOptions = {}): Promise<Checkpoint> {
  const { signal } = options;
  try {
    const start = await source.read(0, Math.min(16, source.size), signal);
    if (startsWith(start, 0x50, 0x4b, 3, 4)) return await openPytorch(source, signal);
    if (start.byteLength > 8 && start[8] === 0x7b) return await openSafetensors(source, signal);
    if (isPickle(start)) throw await refuseBarePickle(source, signal);
    if (source.size > 0 && /^\s*(?:version https:|<|\{)/.test(new TextDecoder().decode(start))) {
      throw new MatMambaError('FORMAT', `${source.name} is a text, not weights`, {
        hint: 'a git clone without LFS and a failed download leave such files: fetch the file itself (git lfs pull)',
      });
    }
    // What is left is no checkpoint; the safetensors reader says in what way.
    return await openSafetensors(source, signal);
  } catch (error) {
    await source.close().catch(() => undefined);
    throw error;
  }
}

async function readIndex(source: ByteSource): Promise<{ weightMap: JsonObject; metadata: Record<string, string> }> {
  const path = source.name;
  try {
    if (source.size > MAX_INDEX_BYTES)
      throw new MatMambaError('FORMAT', `${path} is ${source.size} bytes, too large for an index`);
    const index = parsePythonJsonBytes(await source.read(0, source.size), { name: path, uniqueKeys: true });
    const weightMap = isJsonObject(index) ? index['weight_map'] : undefined;
    if (!isJsonObject(index) || !isJsonObject(weightMap)) {
      throw new MatMambaError('FORMAT', `${path} has no weight_map`, { hint: 'it should name the file of every tensor' });
    }
    const metadata: Record<string, string> = Object.create(null);
    const given = index['metadata'];
    if (isJsonObject(given)) {
      for (const [key, value] of Object.entries(given)) if (typeof value !== 'object') metadata[key] = String(value);
    }
    return { weightMap, metadata };
  } finally {
    await source.close();
  }
}

/** Adds the tensors that the index reads from one shard. @throws FORMAT when one is not there */
function takeShard(
  shard: Checkpoint,
  file: string,
  names: readonly string[],
  entries: Map<string, TensorEntry>,
  aliases: Map<string, string>,
): void {
  const wanted = new Set(names);
  for (const name of names) {
    const entry = shard.entries.get(name);
    if (!entry) throw new MatMambaError('FORMAT', `the index reads '${name}' from ${file}, which does not hold it`);
    entries.set(name, entry);
  }
  for (const [name, target] of shard.aliases) {
    // An index lists what is stored; a tied name may be missing from it.
    if (!wanted.has(target)) continue;
    if (!wanted.has(name)) entries.set(name, aliasEntry(name, entries.get(target)!));
    aliases.set(name, target);
  }
}

/** Shards as one checkpoint: their index, which is closed, and a way to open each of them. @throws FORMAT, FILE, UNSAFE, ABORTED */
export async function openShards(
  index: ByteSource,
  sourceOf: (file: string) => Promise<ByteSource>,
  layout: WeightsLayout,
  options: OpenCheckpointOptions,
): Promise<Checkpoint> {
  const { weightMap, metadata } = await readIndex(index);
  const byFile = new Map<string, string[]>();
  for (const [name, file] of Object.entries(weightMap)) {
    if (!isPlainFileName(file))
      throw new MatMambaError('FORMAT', `${layout.index}: '${name}' is in ${JSON.stringify(file)}, which is no file name`);
    const names = byFile.get(file);
    if (names) names.push(name);
    else byFile.set(file, [name]);
  }
  const shards: Checkpoint[] = [];
  const entries = new Map<string, TensorEntry>();
  const aliases = new Map<string, string>();
  const all: Record<string, string> = Object.create(null);
  const close = async (): Promise<void> => {
    await Promise.all(shards.map((shard) => shard.close()));
  };
  try {
    for (const [file, names] of byFile) {
      const shard = await openCheckpointSource(await sourceOf(file), options);
      shards.push(shard);
      if (shard.format !== layout.format) throw new MatMambaError('FORMAT', `${file} is not a ${layout.format} file`);
      takeShard(shard, file, names, entries, aliases);
      Object.assign(all, shard.metadata);
    }
  } catch (error) {
    await close().catch(() => undefined);
    throw error;
  }
  return { format: layout.format, entries, aliases, metadata: Object.assign(all, metadata), close, [Symbol.asyncDispose]: close };
}

async function openFolderShards(folder: string, layout: WeightsLayout, options: OpenCheckpointOptions): Promise<Checkpoint> {
  const { join } = await import('node:path');
  return openShards(await fileSource(join(folder, layout.index)), (file) => fileSource(join(folder, file)), layout, options);
}

async function openFile(path: string, options: OpenCheckpointOptions): Promise<Checkpoint> {
  return openCheckpointSource(await fileSource(path), options);
}

/**
 * Opens a checkpoint: a folder (`model.safetensors`, `model.safetensors.index.json`, `pytorch_model.bin`,
 * `pytorch_model.bin.index.json`, the first that is there) or one file (.safetensors, .bin, .pt, .pth, or the index of
 * shards). Nothing but structure is read; tensors are read on request.
 * @throws FILE when nothing is there; FORMAT, UNSAFE, ABORTED
 */
export async function openCheckpoint(path: string, options: OpenCheckpointOptions = {}): Promise<Checkpoint> {
  throwIfAborted(options.signal);
  const { readdir } = await import('node:fs/promises');
  const { basename, dirname, join } = await import('node:path');
  let files: string[];
  try {
    files = await readdir(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOTDIR') throw fileError(error, 'open', path);
    const layout = LAYOUTS.find(({ index }) => index === basename(path));
    return layout ? openFolderShards(dirname(path), layout, options) : openFile(path, options);
  }
  for (const layout of LAYOUTS) {
    if (files.includes(layout.single)) return openFile(join(path, layout.single), options);
    if (files.includes(layout.index)) return openFolderShards(path, layout, options);
  }
  const others = files.filter((file) => /\.(?:safetensors|bin|pt|pth)$/.test(file)).sort();
  const wanted = LAYOUTS.flatMap(({ single, index }) => [single, index]).join(', ');
  throw new MatMambaError('FILE', `${path} holds no weights`, {
    hint:
      others.length > 0
        ? `looked for ${wanted}; to open another file, name it: ${join(path, others[0]!)}`
        : `looked for ${wanted}`,
  });
}
