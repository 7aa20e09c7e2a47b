/**
 * From a model's name to a folder with its files: a folder that exists, or `owner/name` on the Hugging Face hub.
 *
 * The cache has the layout of the other hub clients (`models--owner--name/{refs,blobs,snapshots}`), so they share
 * downloads. Weights come last, so a snapshot that has them has everything. The hub's own environment variables
 * (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT) are read in `settingsOf`, or
 * by the hub library called there, and nowhere else. Node only.
 */

import { MatMambaError, refuseUnknownKeys, throwIfAborted } from '../errors.ts';
import { writeFileAtomic } from './atomic-file.ts';
import { errnoOf, fileError } from './file-errors.ts';
import { type HubAccess, HubFailure, downloadFile, hubCall } from './hub-transfer.ts';
import { LAYOUTS, isPlainFileName } from './layout.ts';
import { isModelId } from './model-id.ts';
import { isJsonObject, parsePythonJsonBytes } from './python-json.ts';

export interface DownloadProgress {
  readonly file: string;
  readonly loadedBytes: number;
  readonly totalBytes: number;
}

export interface ResolveModelOptions {
  /** Branch, tag or commit. Default: main. */
  readonly revision?: string | undefined;
  /** Default: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub. */
  readonly cacheDir?: string | undefined;
  /** Use what the cache holds and never the network. Default: HF_HUB_OFFLINE. */
  readonly localFilesOnly?: boolean | undefined;
  readonly progressCallback?: ((progress: DownloadProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Default: HF_TOKEN. */
  readonly token?: string | undefined;
  /** Default: HF_ENDPOINT or https://huggingface.co. */
  readonly endpoint?: string | undefined;
  /** The longest wait for the next bytes. Default: HF_HUB_DOWNLOAD_TIMEOUT (seconds) or 30,000. */
  readonly timeoutMs?: number | undefined;
  /** Failed attempts in a row before giving up. Default: 4. */
  readonly retries?: number | undefined;
  /** Another `fetch`, for example through a proxy. */
  readonly fetch?: typeof fetch | undefined;
}

export interface ResolvedModel {
  /** A folder with config.json and weights. */
  readonly folder: string;
  readonly source: 'folder' | 'cache' | 'hub';
  /** The commit of a hub model. */
  readonly commit?: string;
}

const OPTION_KEYS = [
  'revision',
  'cacheDir',
  'localFilesOnly',
  'progressCallback',
  'signal',
  'token',
  'endpoint',
  'timeoutMs',
  'retries',
  'fetch',
] as const satisfies ReadonlyArray<keyof ResolveModelOptions>;
const PROGRESS_INTERVAL_MS = 100;
const COMMIT = /^[0-9a-f]{40}$/;

interface Settings extends HubAccess {
  readonly revision: string;
  readonly cacheDir: string;
  readonly offline: boolean;
}

/** Options, then the hub's environment variables, then defaults. @throws OPTION */
async function settingsOf(options: ResolveModelOptions): Promise<Settings> {
  const { getHFHubCachePath } = await import('@huggingface/hub');
  const environment = process.env;
  const endpoint = (options.endpoint ?? (environment['HF_ENDPOINT'] || 'https://huggingface.co')).replace(/\/+$/, '');
  if (!/^https?:$/.test(URL.canParse(endpoint) ? new URL(endpoint).protocol : '')) {
    throw new MatMambaError('OPTION', `the hub's endpoint '${endpoint}' is not a URL`, {
      hint: 'it should look like https://huggingface.co',
    });
  }
  const token = (options.token ?? environment['HF_TOKEN'])?.trim() || undefined;
  if (token && !/^[\x21-\x7e]+$/.test(token))
    throw new MatMambaError('OPTION', 'the token holds spaces or other characters that no token has');
  const revision = options.revision ?? 'main';
  if (!/^[\w][\w./+-]*$/.test(revision) || revision.includes('..')) {
    throw new MatMambaError('OPTION', `'${revision}' is not a revision`, { hint: 'name a branch, a tag or a commit' });
  }
  const seconds = Number(environment['HF_HUB_DOWNLOAD_TIMEOUT']);
  const timeoutMs = options.timeoutMs ?? (seconds > 0 ? seconds * 1000 : 30_000);
  const retries = options.retries ?? 4;
  if (!(timeoutMs > 0 && timeoutMs < 2 ** 31)) throw new MatMambaError('OPTION', `timeoutMs must be above 0, got ${timeoutMs}`);
  if (!(Number.isInteger(retries) && retries >= 0))
    throw new MatMambaError('OPTION', `retries must be a whole number, got ${retries}`);
  return {
    endpoint,
    token,
    revision,
    timeoutMs,
    retries,
    signal: options.signal,
    fetch: options.fetch ?? fetch,
    cacheDir: options.cacheDir ?? getHFHubCachePath(),
    offline: options.localFilesOnly ?? /^(?:1|on|yes|true)$/i.test(environment['HF_HUB_OFFLINE'] ?? ''),
  };
}

async function isThere(path: string): Promise<boolean> {
  const { stat } = await import('node:fs/promises');
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** The shards that an index names. @throws FORMAT */
async function shardsOf(indexPath: string): Promise<string[]> {
  const { readFile } = await import('node:fs/promises');
  const index = parsePythonJsonBytes(await readFile(indexPath), { name: indexPath });
  const map = isJsonObject(index) ? index['weight_map'] : undefined;
  const names = new Set(isJsonObject(map) ? Object.values(map) : []);
  for (const name of names)
    if (!isPlainFileName(name))
      throw new MatMambaError('FORMAT', `${indexPath} names ${JSON.stringify(name)}, which is no file name`);
  if (names.size === 0) throw new MatMambaError('FORMAT', `${indexPath} names no files`);
  return [...names] as string[];
}

/** Whether a snapshot has a configuration and whole weights. */
async function isComplete(snapshot: string): Promise<boolean> {
  const { join } = await import('node:path');
  if (!(await isThere(join(snapshot, 'config.json')))) return false;
  for (const { single, index } of LAYOUTS) {
    if (await isThere(join(snapshot, single))) return true;
    if (!(await isThere(join(snapshot, index)))) continue;
    const shards = await shardsOf(join(snapshot, index)).catch(() => undefined);
    if (shards && (await Promise.all(shards.map((shard) => isThere(join(snapshot, shard))))).every(Boolean)) return true;
  }
  return false;
}

/** The complete snapshot that the cache has for a revision. */
async function cachedSnapshot(storage: string, revision: string): Promise<ResolvedModel | undefined> {
  const { readFile } = await import('node:fs/promises');
  const { join } = await import('node:path');
  const commit = COMMIT.test(revision)
    ? revision
    : (await readFile(join(storage, 'refs', revision), 'utf8').catch(() => '')).trim();
  if (!COMMIT.test(commit)) return undefined;
  const folder = join(storage, 'snapshots', commit);
  return (await isComplete(folder)) ? { folder, source: 'cache', commit } : undefined;
}

interface RemoteFile {
  readonly name: string;
  readonly size: number;
  /** Names the blob in the cache. */
  readonly etag: string;
  readonly hash: string | undefined;
}

/** The files at the top of the repository. @throws NETWORK */
async function listRemote(settings: Settings, id: string, commit: string): Promise<Map<string, RemoteFile>> {
  const { listFiles } = await import('@huggingface/hub');
  const found = await hubCall(settings, id, async (request) => {
    const files = new Map<string, RemoteFile>();
    for await (const entry of listFiles({
      repo: { type: 'model', name: id },
      revision: commit,
      hubUrl: settings.endpoint,
      fetch: request,
    })) {
      if (entry.type !== 'file' || !isPlainFileName(entry.path)) continue;
      const etag = entry.lfs?.oid ?? entry.xetHash ?? entry.oid ?? '';
      const size = entry.lfs?.size ?? entry.size;
      if (!/^[0-9a-f]{40,64}$/.test(etag) || !Number.isSafeInteger(size) || size < 0)
        throw new Error(`no hash or size for ${entry.path}`);
      // A xet hash is not a hash of the bytes.
      files.set(entry.path, { name: entry.path, size, etag, hash: entry.lfs?.oid ?? (entry.xetHash ? undefined : entry.oid) });
    }
    return files;
  });
  return found;
}

/** The commit a revision stands for now. @throws NETWORK */
async function commitOf(settings: Settings, id: string): Promise<string> {
  const { modelInfo } = await import('@huggingface/hub');
  return hubCall(settings, `${id} (${settings.revision})`, async (request) => {
    const info = await modelInfo({
      name: id,
      revision: settings.revision,
      additionalFields: ['sha'],
      hubUrl: settings.endpoint,
      fetch: request,
    });
    if (!COMMIT.test(String(info.sha))) throw new Error('no commit');
    return info.sha;
  });
}

/** Calls back at most ten times a second a file, and at its end. */
function throttled(callback: ResolveModelOptions['progressCallback'], file: RemoteFile): (loadedBytes: number) => void {
  let last = -Infinity;
  return (loadedBytes) => {
    const now = performance.now();
    if (!callback || (loadedBytes < file.size && now - last < PROGRESS_INTERVAL_MS)) return;
    last = now;
    callback({ file: file.name, loadedBytes, totalBytes: file.size });
  };
}

/** Puts one file into the cache: blob, then a link from the snapshot. */
async function fetchFile(
  settings: Settings,
  storage: string,
  id: string,
  commit: string,
  file: RemoteFile,
  callback: ResolveModelOptions['progressCallback'],
): Promise<void> {
  const { copyFile, mkdir, rename, rm, stat, symlink } = await import('node:fs/promises');
  const { join } = await import('node:path');
  const pointer = join(storage, 'snapshots', commit, file.name);
  const blob = join(storage, 'blobs', file.etag);
  const report = throttled(callback, file);
  try {
    await mkdir(join(storage, 'snapshots', commit), { recursive: true });
    await mkdir(join(storage, 'blobs'), { recursive: true });
    const size = await stat(blob).then(
      (stats) => stats.size,
      () => -1,
    );
    if (size === file.size) report(size);
    else {
      const url = `${settings.endpoint}/${id}/resolve/${commit}/${encodeURIComponent(file.name)}`;
      const incomplete = `${blob}.incomplete`;
      await downloadFile(settings, {
        url,
        name: `${id}/${file.name}`,
        size: file.size,
        incomplete,
        hash: file.hash,
        onBytes: report,
      });
      // Another process may have finished the same blob meanwhile; its bytes are the same.
      await rename(incomplete, blob).catch(async (error: unknown) => {
        if (errnoOf(error) !== 'ENOENT' || !(await isThere(blob))) throw error;
      });
    }
    if (await isThere(pointer)) return;
    await rm(pointer, { force: true });
    await symlink(join('..', '..', 'blobs', file.etag), pointer).catch(async (error: unknown) => {
      if (errnoOf(error) === 'EEXIST') return;
      await copyFile(blob, pointer); // a system or disk without symbolic links
    });
  } catch (error) {
    throw fileError(error, 'write', pointer);
  }
}

/** Downloads configuration, tokenizer, then the weights of the first layout the repository has. */
async function fetchModel(
  settings: Settings,
  storage: string,
  id: string,
  commit: string,
  options: ResolveModelOptions,
): Promise<string> {
  const { join } = await import('node:path');
  const remote = await listRemote(settings, id, commit);
  const folder = join(storage, 'snapshots', commit);
  const fetchNamed = async (name: string): Promise<void> => {
    const file = remote.get(name);
    if (!file)
      throw new MatMambaError('FILE', `${id} has no ${name}, which its index names`, { hint: 'tell the owner of the model' });
    await fetchFile(settings, storage, id, commit, file, options.progressCallback);
  };
  const layout = LAYOUTS.find(({ single, index }) => remote.has(single) || remote.has(index));
  if (!layout || !remote.has('config.json')) {
    const missing = layout ? 'config.json' : 'weights';
    const holds = [...remote.keys()].slice(0, 12).join(', ');
    throw new MatMambaError('FILE', `${id} holds no ${missing}${holds ? ` (it holds ${holds})` : ''}`, {
      hint: 'it needs config.json and model.safetensors or pytorch_model.bin; check the id and the revision',
    });
  }
  await fetchNamed('config.json');
  for (const name of remote.keys()) if (/^tokenizer.*\.json$/.test(name)) await fetchNamed(name);
  if (remote.has(layout.single)) await fetchNamed(layout.single);
  else {
    await fetchNamed(layout.index);
    for (const shard of await shardsOf(join(folder, layout.index))) await fetchNamed(shard);
  }
  return folder;
}

async function isFolder(path: string): Promise<boolean> {
  const { stat } = await import('node:fs/promises');
  return stat(path).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
}

/**
 * The folder of a model: `idOrFolder` itself when it is a folder, else the hub's `owner/name`, downloaded into the cache
 * (config.json, tokenizer*.json, and model.safetensors before pytorch_model.bin) unless it is there.
 * @throws FILE when there is no such folder or no weights; NETWORK with what to do; OPTION, FORMAT, ABORTED
 */
export async function resolveModel(idOrFolder: string, options: ResolveModelOptions = {}): Promise<ResolvedModel> {
  refuseUnknownKeys(options, OPTION_KEYS, 'resolveModel');
  throwIfAborted(options.signal);
  if (await isFolder(idOrFolder)) return { folder: idOrFolder, source: 'folder' };
  if (!isModelId(idOrFolder)) {
    const isFile = await isThere(idOrFolder);
    throw new MatMambaError(
      'FILE',
      isFile ? `${idOrFolder} is a file, not a folder` : `there is no folder '${idOrFolder}', and it is no hub id`,
      {
        hint: isFile ? 'name the folder that holds it and config.json' : 'a hub id looks like owner/name; a folder must exist',
      },
    );
  }
  const settings = await settingsOf(options);
  const { getRepoFolderName } = await import('@huggingface/hub');
  const { dirname, join } = await import('node:path');
  const storage = join(settings.cacheDir, getRepoFolderName({ type: 'model', name: idOrFolder }));

  const cached = await cachedSnapshot(storage, settings.revision);
  if (cached && (settings.offline || cached.commit === settings.revision)) return cached;
  if (settings.offline) {
    throw new MatMambaError(
      'NETWORK',
      `${idOrFolder} (${settings.revision}) is not, or not wholly, in the cache ${settings.cacheDir}`,
      {
        hint: 'run once without localFilesOnly and HF_HUB_OFFLINE to download it, or name a folder',
      },
    );
  }
  let commit: string;
  try {
    commit = await commitOf(settings, idOrFolder);
  } catch (error) {
    // The hub cannot be asked: what it said last time is better than nothing.
    if (cached && error instanceof HubFailure && error.unreachable) return cached;
    throw error;
  }
  if (cached?.commit === commit) return cached;
  const folder = await fetchModel(settings, storage, idOrFolder, commit, options);
  if (settings.revision !== commit) {
    const { mkdir } = await import('node:fs/promises');
    const ref = join(storage, 'refs', settings.revision);
    await mkdir(dirname(ref), { recursive: true }).catch((error: unknown) => {
      throw fileError(error, 'write', ref);
    });
    await writeFileAtomic(ref, commit);
  }
  return { folder, source: 'hub', commit };
}
