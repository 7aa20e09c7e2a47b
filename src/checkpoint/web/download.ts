/**
 * Fetches a file once: into the store, in order, with progress. A transfer that breaks off goes on with a range where
 * it stopped; each answer's ETag (or date) is compared with the first one's, so a file that changes on the server
 * meanwhile is fetched anew and never put together from two versions (RFC 9110, sections 13 and 14).
 */

import { MatMambaError, messageOf, throwIfAborted } from '../../errors.ts';
import { type FileRecord, type FileStore, defaultStore, memoryStore } from './store.ts';

export interface FetchProgress {
  readonly loadedBytes: number;
  /** 0 while the server has not said. */
  readonly totalBytes: number;
  /** The server has another version than the one that was kept, or begun: the file is fetched anew. */
  readonly changed?: boolean;
}

export interface DownloadOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
  /** Failed attempts in a row before giving up. Default: 4. */
  readonly retries?: number | undefined;
  /** The longest wait for the next bytes. Default: 30,000. */
  readonly timeoutMs?: number | undefined;
  readonly token?: string | undefined;
  readonly fetch?: typeof fetch | undefined;
  /** Default: the origin's private file system, or memory. */
  readonly store?: FileStore | undefined;
}

/** A file is started over so often before it is called unsteady. */
const MOST_RESTARTS = 3;
/** Bytes between two notes of how far a download has come. */
const SAVE_BYTES = 4 * 2 ** 20;
const PROGRESS_INTERVAL_MS = 100;
const FIRST_WAIT_MS = 250;

/** What may go better next time. */
class BrokenOff extends Error {}
/** What was fetched so far belongs to another version. */
class Changed extends Error {}

/**
 * The file at a URL, or undefined where there is none (404).
 * @throws NETWORK when it cannot be fetched, ABORTED
 */
export async function download(url: string, options: DownloadOptions = {}): Promise<Blob | undefined> {
  const store = options.store ?? (await defaultStore());
  const key = await keyOf(url);
  return exclusively(key, options.signal, async () => {
    try {
      return await new Download(url, key, store, options).run();
    } catch (error) {
      if (!(error instanceof DOMException) || error.name !== 'QuotaExceededError') throw error;
      // No room to keep it: it is used all the same.
      await store.remove(key);
      return new Download(url, key, memoryStore(), options).run();
    }
  });
}

class Download {
  readonly #url: string;
  readonly #key: string;
  readonly #store: FileStore;
  readonly #options: DownloadOptions;
  #toldMs = 0;
  /** How often what was there turned out to be of another version. */
  #changes = 0;

  constructor(url: string, key: string, store: FileStore, options: DownloadOptions) {
    this.#url = url;
    this.#key = key;
    this.#store = store;
    this.#options = options;
  }

  async run(): Promise<Blob | undefined> {
    const kept = await this.#store.record(this.#key);
    if (kept?.complete && (await this.#isCurrent(kept))) {
      this.#tell(kept.savedBytes, kept.savedBytes, true);
      return this.#store.blob(this.#key);
    }
    if (kept?.complete) {
      this.#changes++;
      await this.#store.remove(this.#key);
    }
    const { retries = 4 } = this.#options;
    for (let failures = 0; ;) {
      throwIfAborted(this.#options.signal);
      const before = (await this.#store.record(this.#key))?.savedBytes ?? 0;
      try {
        const isThere = await this.#attempt();
        if (isThere) return await this.#store.blob(this.#key);
        await this.#store.remove(this.#key);
        await this.#store.setRecord(this.#key, absence(this.#url));
        return undefined;
      } catch (error) {
        throwIfAborted(this.#options.signal);
        if (kept?.absent && error instanceof BrokenOff) return undefined;
        if (error instanceof Changed) {
          await this.#store.remove(this.#key);
          if (++this.#changes > MOST_RESTARTS) throw this.#failure(error);
          continue;
        }
        if (!(error instanceof BrokenOff)) throw this.#failure(error);
        const after = (await this.#store.record(this.#key))?.savedBytes ?? 0;
        failures = after > before ? 1 : failures + 1;
        if (failures > retries) throw this.#failure(error);
        await this.#wait(FIRST_WAIT_MS * 2 ** (failures - 1));
      }
    }
  }

  /** Whether the server still has this version, or cannot be asked. */
  async #isCurrent(kept: FileRecord): Promise<boolean> {
    let response: Response;
    try {
      response = await this.#request({ method: 'HEAD' });
    } catch {
      throwIfAborted(this.#options.signal);
      return true;
    }
    if (response.status === 404) return false;
    return !response.ok || isSameVersion(kept, response);
  }

  /** One request and what it brings; false where there is no such file. @throws BrokenOff, Changed */
  async #attempt(): Promise<boolean> {
    const kept = await this.#store.record(this.#key);
    // Without its size and a name for the version nothing tells whether the rest would fit.
    const start = kept?.size !== undefined && (kept.etag ?? kept.modified) ? kept.savedBytes : 0;
    const headers = new Headers();
    if (start > 0) {
      headers.set('Range', `bytes=${start}-`);
      // To other origins this header would need a permission of theirs; the answer is compared in any case.
      if (kept!.etag?.startsWith('"') && this.#isSameOrigin) headers.set('If-Range', kept!.etag);
    }
    const response = await this.#request({ headers });
    if (response.status === 404 || response.status === 410) return false;
    if (response.status === 416) throw new Changed('the file became shorter');
    if (response.status === 408 || response.status === 429 || response.status >= 500) {
      throw new BrokenOff(`status ${response.status}`);
    }
    if (!response.ok || !response.body) throw new Error(`the server answered with status ${response.status}`);
    const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get('Content-Range') ?? '');
    const goesOn = response.status === 206;
    if (goesOn && (!isSameVersion(kept!, response) || (range && (+range[1]! !== start || +range[2]! !== kept!.size)))) {
      await response.body.cancel();
      throw new Changed('the file changed while it was fetched');
    }
    if (start > 0 && !goesOn && !isSameVersion(kept!, response) && ++this.#changes > MOST_RESTARTS) {
      await response.body.cancel();
      throw new Changed('the file changed while it was fetched');
    }
    const record: FileRecord = goesOn ? kept! : { ...describe(this.#url, response), savedBytes: 0, complete: false };
    await this.#receive(response.body, goesOn ? start : 0, record);
    return true;
  }

  async #receive(body: ReadableStream<Uint8Array<ArrayBuffer>>, start: number, record: FileRecord): Promise<void> {
    const { size } = record;
    await this.#store.setRecord(this.#key, { ...record, savedBytes: start });
    const file = await this.#store.open(this.#key);
    const reader = body.getReader();
    let position = start;
    let saved = start;
    const save = async (complete: boolean): Promise<void> => {
      file.flush();
      saved = position;
      await this.#store.setRecord(this.#key, { ...record, size: complete ? position : size, savedBytes: position, complete });
    };
    try {
      file.truncate(start);
      for (;;) {
        const { done, value } = await this.#next(reader);
        if (done) break;
        file.write(value, position);
        position += value.length;
        this.#tell(position, size ?? 0, false);
        if (position - saved >= SAVE_BYTES) await save(false);
      }
      if (size !== undefined && position < size) throw new BrokenOff(`it broke off at byte ${position} of ${size}`);
      if (size !== undefined && position > size) throw new Changed('the file became longer while it was fetched');
      await save(true);
      this.#tell(position, position, true);
    } catch (error) {
      await reader.cancel().catch(() => {});
      if (position > saved) await save(false).catch(() => {});
      throw error;
    } finally {
      file.close();
    }
  }

  /** The next bytes. @throws BrokenOff when the connection is gone, or silent for too long */
  async #next(
    reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>,
  ): Promise<ReadableStreamReadResult<Uint8Array<ArrayBuffer>>> {
    const { timeoutMs = 30_000, signal } = this.#options;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const silence = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new BrokenOff(`nothing came for ${timeoutMs} ms`)), timeoutMs);
    });
    try {
      return await Promise.race([reader.read(), silence]);
    } catch (error) {
      throwIfAborted(signal);
      throw error instanceof BrokenOff ? error : new BrokenOff(messageOf(error), { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  async #request(init: RequestInit): Promise<Response> {
    const { signal, token, fetch: ask = globalThis.fetch } = this.#options;
    const headers = new Headers(init.headers);
    if (token) headers.set('Authorization', `Bearer ${token}`);
    try {
      return await ask(this.#url, { ...init, headers, cache: 'no-store', ...(signal ? { signal } : {}) });
    } catch (error) {
      throwIfAborted(signal);
      throw new BrokenOff(messageOf(error), { cause: error });
    }
  }

  get #isSameOrigin(): boolean {
    const page = (globalThis as { location?: { origin: string } }).location;
    return page === undefined || new URL(this.#url).origin === page.origin;
  }

  #tell(loadedBytes: number, totalBytes: number, isLast: boolean): void {
    const now = performance.now();
    if (!isLast && now - this.#toldMs < PROGRESS_INTERVAL_MS) return;
    this.#toldMs = now;
    this.#options.onProgress?.({ loadedBytes, totalBytes, ...(this.#changes > 0 ? { changed: true } : {}) });
  }

  async #wait(ms: number): Promise<void> {
    const { signal } = this.#options;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      signal?.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
    });
  }

  #failure(error: unknown): unknown {
    if (error instanceof MatMambaError || error instanceof DOMException) return error;
    const hint =
      error instanceof Changed
        ? 'it changes again and again: try later'
        : 'check the address and the connection; what came so far is kept where there is room';
    return new MatMambaError('NETWORK', `${this.#url} cannot be fetched: ${messageOf(error)}`, { hint, cause: error });
  }
}

/** So that a model without some small file opens without a network, too. */
function absence(url: string): FileRecord {
  return { url, etag: null, modified: null, size: undefined, savedBytes: 0, complete: false, absent: true };
}

function describe(url: string, { headers }: Response): Pick<FileRecord, 'url' | 'etag' | 'modified' | 'size'> {
  const length = headers.get('Content-Length');
  // A length of compressed bytes is none of the file's.
  const size = length === null || headers.get('Content-Encoding') ? undefined : Number(length);
  return { url, etag: headers.get('ETag'), modified: headers.get('Last-Modified'), size };
}

/** Whether an answer is about the version that the record is of, as far as the server tells. */
function isSameVersion(kept: FileRecord, response: Response): boolean {
  const now = describe(kept.url, response);
  if (kept.etag !== null && now.etag !== null) return kept.etag === now.etag;
  if (kept.modified !== null && now.modified !== null) return kept.modified === now.modified;
  return response.status === 206 || kept.size === undefined || now.size === undefined || kept.size === now.size;
}

async function keyOf(url: string): Promise<string> {
  // Only in secure contexts; a name that is merely unlikely to be shared will do elsewhere, where nothing is kept.
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) return encodeURIComponent(url);
  const digest = new Uint8Array(await subtle.digest('SHA-256', new TextEncoder().encode(url)));
  return Array.from(digest.subarray(0, 16), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** One download of a file at a time, whatever tabs and workers ask for it. */
async function exclusively<R>(key: string, signal: AbortSignal | undefined, task: () => Promise<R>): Promise<R> {
  const locks = globalThis.navigator?.locks;
  if (!locks) return task();
  try {
    return await locks.request(`matmamba/${key}`, signal ? { signal } : {}, task);
  } catch (error) {
    throwIfAborted(signal);
    throw error;
  }
}
