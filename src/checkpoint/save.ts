/**
 * Saves tensors to a folder in either format, in one file or in shards.
 *
 * Everything is written under temporary names first and renamed when all of it is on the disk, the index last: an error
 * on the way leaves the folder as it was. Afterwards the folder holds one checkpoint: shards of an earlier save in the
 * same format are removed, and weights of the other format that a reader would prefer are set aside as `*.old`.
 */

import { MatMambaError, throwIfAborted } from '../errors.ts';
import { AtomicFile, type OpenForWriting } from './atomic-file.ts';
import { errnoOf, fileError } from './file-errors.ts';
import { LAYOUTS, type WeightsLayout, isShardName, shardName } from './layout.ts';
import { formatPythonJson } from './python-json.ts';
import { writePytorch } from './pytorch-writer.ts';
import { writeSafetensors } from './safetensors.ts';
import { type CheckpointFormat, type TensorToSave, byteLengthOf, checkTensorsToSave } from './types.ts';

export interface SaveOptions {
  /** Strings kept beside the tensors. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** Start a new file when one would grow beyond this many bytes of tensors. Default: one file. */
  readonly maxShardBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called after every tensor that was written. */
  readonly onProgress?: ((progress: { name: string; writtenBytes: number; totalBytes: number }) => void) | undefined;
  /** How files are opened; tests put a failing disk in its place. */
  readonly open?: OpenForWriting | undefined;
}

export interface SaveResult {
  /** Names of the files that hold the weights, the index included. */
  readonly files: string[];
  /** Older weights of the other format that were renamed to `*.old`, because a reader would have preferred them. */
  readonly setAside: string[];
}

function bytesToStore(tensor: TensorToSave): number {
  return tensor.aliasOf === undefined ? byteLengthOf(tensor.dtype, tensor.shape)! : 0;
}

/** Splits the list in order; a tied name goes where its target is. */
function planShards(tensors: readonly TensorToSave[], maxShardBytes: number): TensorToSave[][] {
  const shards: TensorToSave[][] = [[]];
  const shardOf = new Map<string, TensorToSave[]>();
  let filled = 0;
  for (const tensor of tensors) {
    const size = bytesToStore(tensor);
    if (filled > 0 && filled + size > maxShardBytes) {
      shards.push([]);
      filled = 0;
    }
    const shard = (tensor.aliasOf === undefined ? undefined : shardOf.get(tensor.aliasOf)) ?? shards.at(-1)!;
    shard.push(tensor);
    shardOf.set(tensor.name, shard);
    filled += size;
  }
  return shards.filter((shard, i) => i === 0 || shard.length > 0);
}

/** Passes a tensor through, looking at the signal before it and reporting after it. */
function watched(tensor: TensorToSave, signal: AbortSignal | undefined, done: (tensor: TensorToSave) => void): TensorToSave {
  if (tensor.aliasOf !== undefined) return tensor;
  return {
    ...tensor,
    async *chunks() {
      throwIfAborted(signal);
      const given = tensor.chunks();
      for await (const piece of given instanceof Uint8Array ? [given] : given) {
        throwIfAborted(signal);
        yield piece;
      }
      done(tensor);
    },
  };
}

/** Which shard holds which name. A safetensors shard does not store tied names; its metadata knows them. */
function indexText(
  shards: ReadonlyArray<readonly TensorToSave[]>,
  names: readonly string[],
  format: CheckpointFormat,
  totalBytes: number,
  metadata: object,
): string {
  const weightMap: Record<string, string> = Object.create(null);
  shards.forEach((shard, i) => {
    for (const tensor of shard) if (format === 'pytorch' || tensor.aliasOf === undefined) weightMap[tensor.name] = names[i]!;
  });
  return formatPythonJson({ metadata: { ...metadata, total_size: totalBytes }, weight_map: weightMap });
}

/** Removes or renames what would make the folder ambiguous. */
async function clearOlder(folder: string, layout: WeightsLayout, written: readonly string[]): Promise<string[]> {
  const { readdir, rename, unlink } = await import('node:fs/promises');
  const { join } = await import('node:path');
  const setAside: string[] = [];
  const preferred = LAYOUTS.slice(0, LAYOUTS.indexOf(layout)).flatMap(({ single, index }) => [single, index]);
  for (const name of await readdir(folder)) {
    if (written.includes(name)) continue;
    if (name === layout.single || name === layout.index || isShardName(layout, name)) await unlink(join(folder, name));
    else if (preferred.includes(name)) {
      await rename(join(folder, name), join(folder, `${name}.old`));
      setAside.push(name);
    }
  }
  return setAside;
}

/**
 * Saves tensors into a folder, which is made when it is missing. A full disk, an abort or any other failure leaves the
 * folder's earlier weights as they were.
 * @throws FILE with a hint; SHAPE, WEIGHTS for tensors that do not fit; OPTION; ABORTED
 */
export async function saveTensors(
  folder: string,
  format: CheckpointFormat,
  tensors: readonly TensorToSave[],
  options: SaveOptions = {},
): Promise<SaveResult> {
  const { metadata = {}, maxShardBytes = Infinity, signal, onProgress, open } = options;
  const layout = LAYOUTS.find((candidate) => candidate.format === format);
  if (!layout) {
    throw new MatMambaError('OPTION', `unknown checkpoint format '${String(format)}'`, {
      hint: `known: ${LAYOUTS.map((l) => l.format).join(', ')}`,
    });
  }
  if (!(maxShardBytes > 0)) throw new MatMambaError('OPTION', `maxShardBytes must be above 0, got ${maxShardBytes}`);
  throwIfAborted(signal);
  checkTensorsToSave(tensors);
  const { mkdir } = await import('node:fs/promises');
  const { join } = await import('node:path');
  await mkdir(folder, { recursive: true }).catch((error: unknown) => {
    throw errnoOf(error) === 'EEXIST'
      ? new MatMambaError('FILE', `${folder} is a file, not a folder`, { cause: error })
      : fileError(error, 'write', folder);
  });

  const totalBytes = tensors.reduce((sum, tensor) => sum + bytesToStore(tensor), 0);
  let writtenBytes = 0;
  const report = (tensor: TensorToSave): void => {
    writtenBytes += bytesToStore(tensor);
    onProgress?.({ name: tensor.name, writtenBytes, totalBytes });
  };
  const shards = planShards(tensors, maxShardBytes);
  const names = shards.length === 1 ? [layout.single] : shards.map((_, i) => shardName(layout, i + 1, shards.length));
  // `format: pt` is what other readers of safetensors files look for.
  const strings = format === 'safetensors' ? { format: 'pt', ...metadata } : metadata;

  const files: AtomicFile[] = [];
  try {
    for (const [i, shard] of shards.entries()) {
      const file = await AtomicFile.create(join(folder, names[i]!), open);
      files.push(file);
      const list = shard.map((tensor) => watched(tensor, signal, report));
      if (format === 'safetensors') await writeSafetensors(file, list, strings);
      else await writePytorch(file, list, strings, names[i]!.replace(/\.bin$/, ''));
      await file.finish();
    }
    if (shards.length > 1) {
      const index = await AtomicFile.create(join(folder, layout.index), open);
      files.push(index);
      await index.write(new TextEncoder().encode(indexText(shards, names, format, totalBytes, metadata)));
      await index.finish();
      names.push(layout.index);
    }
    throwIfAborted(signal);
    for (const file of files) await file.publish();
  } catch (error) {
    await Promise.all(files.map((file) => file.discard()));
    throw error;
  }
  try {
    return { files: names, setAside: await clearOlder(folder, layout, names) };
  } catch (error) {
    throw fileError(error, 'write', folder);
  }
}
