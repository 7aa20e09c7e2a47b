/** From a folder or hub id to an open checkpoint and the config beside it. */

import {
  type Checkpoint,
  type FileFolder,
  type JsonObject,
  type ResolveModelOptions,
  type TensorEntry,
  UrlFolder,
  isJsonObject,
  memoryFolder,
  openCheckpoint,
  openFolderWeights,
  parsePythonJsonBytes,
  resolveModel,
  urlOfModel,
} from '../checkpoint/index.ts';
import { MatMambaError, refuseUnknownKeys } from '../errors.ts';
import type { ParameterSet } from './model.ts';
import { type LoadProgress, MODEL_OPTION_KEYS, type ModelOptions, ModelRuntime } from './runtime.ts';
import { SCALE_SUFFIX, checkTensors, checkpointWeights } from './weight-sources.ts';

export interface PretrainedOptions<C> extends ModelOptions, Omit<ResolveModelOptions, 'progressCallback'> {
  /** For checkpoints without a `config.json`, such as a trainer's `.pt`. */
  readonly config?: Partial<C> | undefined;
  /** Told of downloads (`file`, and whether it is fetched anew because it changed) and of weights going to the device. */
  readonly progressCallback?:
    | ((progress: LoadProgress & { readonly file?: string; readonly changed?: boolean }) => void)
    | undefined;
}

const PRETRAINED_KEYS = [
  ...MODEL_OPTION_KEYS,
  'config',
  'revision',
  'cacheDir',
  'localFilesOnly',
  'progressCallback',
  'token',
  'endpoint',
  'timeoutMs',
  'retries',
  'fetch',
] as const;

/** Where a model is: a folder, a weights file, a URL of a folder, a hub id, or its files by name, as `files()` gives them. */
export type ModelSource = string | Readonly<Record<string, Blob>>;

const CONFIG_FILE = 'config.json';

/** What is in a model's folder: where it is, its config file, and the open weights. */
export interface OpenModel {
  /** A path, a URL, or what to call files in memory. */
  readonly folder: string;
  /** One of the small files beside the weights, where they lie in no file system. */
  readonly fetched?: (name: string) => Promise<Blob | undefined>;
  readonly json: JsonObject | undefined;
  readonly checkpoint: Checkpoint;
}

/** @throws FILE, FORMAT, NETWORK, ABORTED */
export async function openModel(idOrFolder: ModelSource, options: PretrainedOptions<unknown>): Promise<OpenModel> {
  refuseUnknownKeys(options, PRETRAINED_KEYS, 'fromPretrained');
  if (typeof idOrFolder !== 'string') return openFiles(memoryFolder(idOrFolder), options.signal);
  const url = urlOfModel(idOrFolder, options);
  if (url !== undefined) {
    const { signal, retries, timeoutMs, token, fetch, progressCallback: onProgress } = options;
    return openFiles(new UrlFolder(url, { signal, retries, timeoutMs, token, fetch, onProgress }), signal);
  }
  const path = await locate(idOrFolder, options);
  const json = await readConfig(path.folder);
  const checkpoint = await openCheckpoint(path.weights, options.signal ? { signal: options.signal } : {});
  return { folder: path.folder, json, checkpoint };
}

async function openFiles(folder: FileFolder, signal: AbortSignal | undefined): Promise<OpenModel> {
  const config = await folder.file(CONFIG_FILE);
  const json = config && parseConfig(new Uint8Array(await config.arrayBuffer()), folder.name + CONFIG_FILE);
  const checkpoint = await openFolderWeights(folder, signal);
  return { folder: folder.name, json, checkpoint, fetched: (name) => folder.file(name) };
}

/** A weights file by itself, a folder, or a hub id. */
async function locate(idOrFolder: string, options: PretrainedOptions<unknown>): Promise<{ folder: string; weights: string }> {
  const [{ stat }, { dirname }] = await Promise.all([import('node:fs/promises'), import('node:path')]);
  const found = await stat(idOrFolder).catch(() => undefined);
  if (found?.isFile()) return { folder: dirname(idOrFolder), weights: idOrFolder };
  const { revision, cacheDir, localFilesOnly, progressCallback, token, endpoint, timeoutMs, retries, signal, fetch } = options;
  const given = { revision, cacheDir, localFilesOnly, progressCallback, token, endpoint, timeoutMs, retries, signal, fetch };
  const { folder } = await resolveModel(idOrFolder, given);
  return { folder, weights: folder };
}

async function readConfig(folder: string): Promise<JsonObject | undefined> {
  const { readFile } = await import('node:fs/promises');
  const path = `${folder}/${CONFIG_FILE}`;
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw new MatMambaError('FILE', `cannot read ${path}`, { cause: error });
  });
  return bytes && parseConfig(bytes, path);
}

function parseConfig(bytes: Uint8Array, path: string): JsonObject {
  const json = parsePythonJsonBytes(bytes, { name: path });
  if (!isJsonObject(json)) throw new MatMambaError('FORMAT', `${path} holds no object`);
  return json;
}

/** What `read` makes of an open model, which is closed again when it fails. */
export async function orClose<R>({ checkpoint }: OpenModel, read: () => R): Promise<R> {
  try {
    return read();
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

/** The tensors of a checkpoint by the names that the model has for them. @throws WEIGHTS, SHAPE when they are not the model's */
export function modelEntries(checkpoint: Checkpoint, parameters: ParameterSet, where: string): ReadonlyMap<string, TensorEntry> {
  const entries = new Map(checkpoint.entries);
  // Some savers keep only one of two tied names.
  for (const [alias, name] of parameters.aliases) {
    for (const suffix of ['', SCALE_SUFFIX]) {
      const tied = entries.get(alias + suffix);
      if (tied && !entries.has(name + suffix)) entries.set(name + suffix, tied);
    }
  }
  checkTensors(entries, parameters.declared, parameters.aliases, where, true);
  return entries;
}

/**
 * Checks names and shapes, then streams the weights to the device. The checkpoint is closed in any case.
 * @throws WEIGHTS, SHAPE, MEMORY, DEVICE, ABORTED
 */
export async function uploadCheckpoint(
  { folder, checkpoint }: OpenModel,
  parameters: ParameterSet,
  options: PretrainedOptions<unknown>,
): Promise<ModelRuntime> {
  try {
    const entries = modelEntries(checkpoint, parameters, folder);
    return await ModelRuntime.open(
      parameters.declared.values(),
      options,
      checkpointWeights(entries, options.signal),
      options.progressCallback,
    );
  } finally {
    await checkpoint.close();
  }
}

/** The config of a checkpoint: its file's, or the caller's. @throws CONFIG */
export function configOf<C>(
  { folder, json }: OpenModel,
  given: Partial<C> | undefined,
  fromJson: (json: JsonObject, warn: (message: string) => void) => Partial<C>,
  warn: (message: string) => void,
): Partial<C> {
  if (given) return given;
  if (json) return fromJson(json, warn);
  throw new MatMambaError('CONFIG', `${folder} has no config.json`, {
    hint: 'give the config, or a preset, of the model that was trained',
  });
}
