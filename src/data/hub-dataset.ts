/**
 * Datasets of the Hugging Face hub: `hub:owner/name[@revision][/path-glob]`.
 *
 * The cache has the layout of the other hub clients (`datasets--owner--name/{refs,blobs,snapshots}`), so they share
 * downloads; `listings` is ours: what a commit holds, for work without a network. Files are downloaded when their turn
 * comes, and a broken download goes on where it stopped. Settings of the environment (HF_ENDPOINT, HF_TOKEN, ...) are
 * the caller's business: the command line passes them on.
 */

import { copyFile, mkdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { writeFileAtomic } from '../checkpoint/atomic-file.ts';
import { errnoOf, fileError } from '../checkpoint/file-errors.ts';
import { isModelId } from '../checkpoint/model-id.ts';
import { type HubAccess, HubFailure, downloadFile, hubCall } from '../checkpoint/hub-transfer.ts';
import { MatMambaError } from '../errors.ts';

export const HUB_PREFIX = 'hub:';
const COMMIT = /^[0-9a-f]{40}$/;

export interface HubDatasetOptions {
  /** Default: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub. */
  readonly cacheDir?: string | undefined;
  /** Use what was downloaded and never the network. */
  readonly localFilesOnly?: boolean | undefined;
  readonly token?: string | undefined;
  /** Default: https://huggingface.co. */
  readonly endpoint?: string | undefined;
  /** The longest wait for the next bytes. Default: 30,000. */
  readonly timeoutMs?: number | undefined;
  /** Failed attempts in a row before giving up. Default: 4. */
  readonly retries?: number | undefined;
  readonly fetch?: typeof fetch | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onDownload?:
    | ((progress: { readonly file: string; readonly loadedBytes: number; readonly totalBytes: number }) => void)
    | undefined;
}

export interface HubFile {
  /** `hub:owner/name@commit/path`. */
  readonly name: string;
  /** Inside the dataset. */
  readonly path: string;
  readonly bytes: number;
  readonly hash: string;
  readonly locate: () => Promise<string>;
}

interface Listed {
  readonly path: string;
  readonly size: number;
  readonly etag: string;
  /** Git's or LFS's hash of the bytes, where the hub gives one. */
  readonly hash?: string | undefined;
}

/** Takes `hub:owner/name@revision/glob` apart. @throws OPTION */
export function parseHubInput(input: string): {
  readonly id: string;
  readonly revision: string;
  readonly glob: string | undefined;
} {
  const found = /^hub:([^/@]+\/[^/@]+)(?:@([^/]+))?(?:\/(.*))?$/.exec(input);
  const [, id = '', revision = 'main', glob] = found ?? [];
  if (!isModelId(id) || !/^\w[\w.+-]*$/.test(revision) || revision.includes('..')) {
    throw new MatMambaError('OPTION', `'${input}' names no dataset of the hub`, {
      hint: 'it looks like hub:owner/name, hub:owner/name/folder/*.parquet or hub:owner/name@revision/...',
    });
  }
  return { id, revision, glob: glob || undefined };
}

function accessOf(options: HubDatasetOptions): HubAccess {
  const endpoint = (options.endpoint ?? 'https://huggingface.co').replace(/\/+$/, '');
  if (!/^https?:$/.test(URL.canParse(endpoint) ? new URL(endpoint).protocol : '')) {
    throw new MatMambaError('OPTION', `the hub's endpoint '${endpoint}' is not a URL`, {
      hint: 'it should look like https://huggingface.co',
    });
  }
  const { token, timeoutMs = 30_000, retries = 4, signal, fetch: request = fetch } = options;
  return { endpoint, token: token?.trim() || undefined, timeoutMs, retries, signal, fetch: request };
}

/**
 * The files of a dataset that a glob matches (all of them without one), sorted by path.
 * @throws OPTION for a name that is none; NETWORK; FILE when the cache cannot be written
 */
export async function listHubDataset(
  input: string,
  matcher: (glob: string) => (path: string) => boolean,
  options: HubDatasetOptions,
): Promise<{ readonly name: string; readonly files: HubFile[] }> {
  const { id, revision, glob } = parseHubInput(input);
  const access = accessOf(options);
  const { getHFHubCachePath, getRepoFolderName } = await import('@huggingface/hub');
  const storage = join(options.cacheDir ?? getHFHubCachePath(), getRepoFolderName({ type: 'dataset', name: id }));
  const { commit, listed } = await listing(access, storage, id, revision, options.localFilesOnly === true);
  const matches = matcher(glob ?? '**');
  const files = listed
    .filter(({ path }) => matches(path))
    .sort((a, b) => (a.path < b.path ? -1 : 1))
    .map((file) => {
      // Asked for twice, a file is downloaded once.
      let located: Promise<string> | undefined;
      const find = (): Promise<string> => {
        located ??= locate(access, storage, id, commit, file, options).catch((error: unknown) => {
          located = undefined;
          throw error;
        });
        return located;
      };
      return {
        name: `${HUB_PREFIX}${id}@${commit}/${file.path}`,
        path: file.path,
        bytes: file.size,
        hash: file.etag,
        locate: find,
      };
    });
  return { name: `${id}@${commit.slice(0, 12)}`, files };
}

/** What a commit holds: from an earlier listing, or from the hub. */
async function listing(
  access: HubAccess,
  storage: string,
  id: string,
  revision: string,
  offline: boolean,
): Promise<{ readonly commit: string; readonly listed: Listed[] }> {
  const reference = join(storage, 'refs', revision);
  const known = COMMIT.test(revision) ? revision : (await readFile(reference, 'utf8').catch(() => '')).trim();
  const saved = COMMIT.test(known) ? await savedListing(storage, known) : undefined;
  if (saved && (offline || known === revision)) return { commit: known, listed: saved };
  if (offline) {
    throw new HubFailure(`${id} (${revision}) is not in the cache ${dirname(storage)}`, { hint: 'run once with a network' });
  }
  let commit: string;
  try {
    commit = await commitOf(access, id, revision);
  } catch (error) {
    // The hub cannot be asked: what it said last time is better than nothing.
    if (saved && error instanceof HubFailure && error.unreachable) return { commit: known, listed: saved };
    throw error;
  }
  const listed = (await savedListing(storage, commit)) ?? (await listRemote(access, id, commit));
  await save(listingPath(storage, commit), JSON.stringify(listed));
  if (commit !== revision) await save(reference, commit);
  return { commit, listed };
}

const listingPath = (storage: string, commit: string): string => join(storage, 'listings', `${commit}.json`);

async function savedListing(storage: string, commit: string): Promise<Listed[] | undefined> {
  try {
    const listed = JSON.parse(await readFile(listingPath(storage, commit), 'utf8')) as Listed[];
    return listed.every(({ path, size, etag }) => isSafePath(path) && Number.isSafeInteger(size) && /^[0-9a-f]+$/.test(etag))
      ? listed
      : undefined;
  } catch {
    return undefined;
  }
}

async function save(path: string, content: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true }).catch((error: unknown) => Promise.reject(fileError(error, 'write', path)));
  await writeFileAtomic(path, content);
}

async function commitOf(access: HubAccess, id: string, revision: string): Promise<string> {
  const { datasetInfo } = await import('@huggingface/hub');
  return hubCall(access, `${id} (${revision})`, async (request) => {
    const info = await datasetInfo({ name: id, revision, additionalFields: ['sha'], hubUrl: access.endpoint, fetch: request });
    if (!COMMIT.test(info.sha)) throw new Error('no commit');
    return info.sha;
  });
}

async function listRemote(access: HubAccess, id: string, commit: string): Promise<Listed[]> {
  const { listFiles } = await import('@huggingface/hub');
  return hubCall(access, id, async (request) => {
    const listed: Listed[] = [];
    const repo = { type: 'dataset', name: id } as const;
    for await (const entry of listFiles({ repo, recursive: true, revision: commit, hubUrl: access.endpoint, fetch: request })) {
      if (entry.type !== 'file' || !isSafePath(entry.path)) continue;
      const etag = entry.lfs?.oid ?? entry.xetHash ?? entry.oid ?? '';
      const size = entry.lfs?.size ?? entry.size;
      if (!/^[0-9a-f]{40,64}$/.test(etag) || !Number.isSafeInteger(size) || size < 0)
        throw new Error(`no hash or size for ${entry.path}`);
      // A xet hash is not a hash of the bytes.
      listed.push({ path: entry.path, size, etag, hash: entry.lfs?.oid ?? (entry.xetHash ? undefined : entry.oid) });
    }
    return listed;
  });
}

/** Whether a path stays inside its folder on every system. */
function isSafePath(path: unknown): path is string {
  return typeof path === 'string' && path.split('/').every((part) => /^\w[\w .+=@(),-]{0,200}$/.test(part));
}

/** The file in the cache, downloaded if need be. */
async function locate(
  access: HubAccess,
  storage: string,
  id: string,
  commit: string,
  file: Listed,
  options: HubDatasetOptions,
): Promise<string> {
  const pointer = join(storage, 'snapshots', commit, ...file.path.split('/'));
  const blob = join(storage, 'blobs', file.etag);
  const sizeOf = (path: string): Promise<number> =>
    stat(path).then(
      (stats) => stats.size,
      () => -1,
    );
  if ((await sizeOf(pointer)) === file.size) return pointer;
  const name = `${id}/${file.path}`;
  try {
    await mkdir(dirname(pointer), { recursive: true });
    await mkdir(dirname(blob), { recursive: true });
    if ((await sizeOf(blob)) !== file.size) {
      if (options.localFilesOnly)
        throw new HubFailure(`${name} is not in the cache ${dirname(storage)}`, { hint: 'run once with a network' });
      const url = `${access.endpoint}/datasets/${id}/resolve/${commit}/${file.path.split('/').map(encodeURIComponent).join('/')}`;
      const incomplete = `${blob}.incomplete`;
      const onBytes = (loadedBytes: number): void => options.onDownload?.({ file: name, loadedBytes, totalBytes: file.size });
      await downloadFile(access, { url, name, size: file.size, incomplete, hash: file.hash, onBytes });
      // Another process may have finished the same blob meanwhile; its bytes are the same.
      await rename(incomplete, blob).catch(async (error: unknown) => {
        if (errnoOf(error) !== 'ENOENT' || (await sizeOf(blob)) < 0) throw error;
      });
    }
    await rm(pointer, { force: true });
    await symlink(relative(dirname(pointer), blob), pointer).catch(async (error: unknown) => {
      if (errnoOf(error) === 'EEXIST') return;
      await copyFile(blob, pointer); // a system or disk without symbolic links
    });
  } catch (error) {
    throw fileError(error, 'write', pointer);
  }
  return pointer;
}
