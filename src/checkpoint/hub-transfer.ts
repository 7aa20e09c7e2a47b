/**
 * Requests to the hub: credentials, timeouts, retries, and downloads that go on where they broke off.
 *
 * Invariants: the token goes to the hub's own origin only, never to where it redirects; every wait ends (a stalled
 * connection after `timeoutMs` without a byte); whatever fails is a MatMambaError that says what to do. A download's
 * `.incomplete` file always holds a prefix of the file, so its length is where the next attempt starts.
 */

import { MatMambaError, messageOf, throwIfAborted } from '../errors.ts';
import { errnoOf, fileError } from './file-errors.ts';

export interface HubAccess {
  /** Without a slash at the end. */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** The longest wait for an answer or for the next bytes. */
  readonly timeoutMs: number;
  /** How many attempts in a row may fail without a single byte before giving up. */
  readonly retries: number;
  readonly signal: AbortSignal | undefined;
  readonly fetch: typeof fetch;
}

/** A NETWORK error, with what the caller can do about it. */
export class HubFailure extends MatMambaError {
  /** Another attempt may succeed. */
  readonly retryable: boolean;
  /** The hub could not be asked, so an earlier answer may be used. */
  readonly unreachable: boolean;

  constructor(message: string, options: { hint: string; cause?: unknown; retryable?: boolean; unreachable?: boolean }) {
    super('NETWORK', message, options);
    this.retryable = options.retryable ?? false;
    this.unreachable = options.unreachable ?? false;
  }
}

const RETRY_DELAY_MS = 250;
const MAX_RETRY_DELAY_MS = 8000;
const NOT_WORTH_RETRYING = new Set([
  'ENOTFOUND',
  'ECONNREFUSED',
  'ERR_INVALID_URL',
  'EAI_AGAIN',
  'CERT_HAS_EXPIRED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
]);

/** What a status other than success means for `what` (a model or file), in words. */
export function statusFailure(status: number, what: string, access: HubAccess, errorCode?: string | null): HubFailure {
  const host = new URL(access.endpoint).host;
  const message = `${host} answered ${status} for ${what}`;
  const token = access.token
    ? 'the token was sent, but it does not give access: check it, and accept the conditions on the model page if it is gated'
    : 'if the model is private or gated, accept its conditions on its page and set HF_TOKEN (or pass token)';
  if (status === 401) return new HubFailure(message, { hint: `check the spelling of the id (owner/name); ${token}` });
  if (status === 403) return new HubFailure(message, { hint: token });
  if (status === 404) {
    const hint =
      errorCode === 'RevisionNotFound'
        ? 'the model has no such revision: check the branch, tag or commit'
        : errorCode === 'EntryNotFound'
          ? 'the model has no such file at this revision'
          : 'check the spelling of the id (owner/name) and of the revision; a private model needs HF_TOKEN';
    return new HubFailure(message, { hint });
  }
  if (status === 429)
    return new HubFailure(message, {
      hint: 'too many requests: wait a few minutes, or set HF_TOKEN for a higher limit',
      retryable: true,
    });
  if (status >= 500 || status === 408) {
    return new HubFailure(message, {
      hint: 'the hub has a problem: try again later; a transfer goes on where it stopped',
      retryable: true,
      unreachable: true,
    });
  }
  return new HubFailure(message, { hint: 'check HF_ENDPOINT (or the endpoint option)' });
}

/** What a thrown value of fetch or of a body means. */
function connectionFailure(cause: unknown, what: string, access: HubAccess): MatMambaError {
  if (cause instanceof MatMambaError) return cause;
  if (access.signal?.aborted) return new MatMambaError('ABORTED', 'stopped by the caller', { cause: access.signal.reason });
  const host = new URL(access.endpoint).host;
  if ((cause as Error | null)?.name === 'TimeoutError') {
    return new HubFailure(`${host} sent nothing for ${access.timeoutMs / 1000} s (${what})`, {
      cause,
      hint: 'check the connection and try again, a transfer goes on where it stopped; HF_HUB_DOWNLOAD_TIMEOUT sets the seconds',
      retryable: true,
      unreachable: true,
    });
  }
  const inner = (cause as { cause?: unknown } | null)?.cause;
  const reason = errnoOf(inner) ?? errnoOf(cause) ?? messageOf(inner ?? cause);
  return new HubFailure(`the connection to ${host} failed (${what}): ${reason}`, {
    cause,
    hint: 'check the connection, a proxy or HF_ENDPOINT; without one, use a downloaded folder or localFilesOnly with a filled cache',
    retryable: !NOT_WORTH_RETRYING.has(reason),
    unreachable: true,
  });
}

async function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
  });
  throwIfAborted(signal);
}

/** Repeats `attempt` while it fails in a way that may pass; `progressed` starts the count anew. */
async function withRetries<T>(access: HubAccess, attempt: () => Promise<T>, progressed: () => boolean = () => false): Promise<T> {
  for (let failures = 0; ;) {
    throwIfAborted(access.signal);
    try {
      return await attempt();
    } catch (error) {
      failures = progressed() ? 1 : failures + 1;
      if (!(error instanceof HubFailure) || !error.retryable || failures > access.retries) throw error;
      await sleep(Math.min(MAX_RETRY_DELAY_MS, RETRY_DELAY_MS * 2 ** (failures - 1)), access.signal);
    }
  }
}

/** Headers for a request; the token only for the hub itself. */
function headersFor(url: string, access: HubAccess, more?: HeadersInit): Headers {
  const headers = new Headers(more);
  if (access.token && new URL(url).origin === new URL(access.endpoint).origin)
    headers.set('Authorization', `Bearer ${access.token}`);
  return headers;
}

/** A watchdog that aborts when it has not been fed for `timeoutMs`. */
class Watchdog {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #timeoutMs: number;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(access: HubAccess) {
    this.#timeoutMs = access.timeoutMs;
    this.signal = access.signal ? AbortSignal.any([access.signal, this.#controller.signal]) : this.#controller.signal;
    this.feed();
  }

  feed(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(new DOMException('no data', 'TimeoutError')), this.#timeoutMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

/** A `fetch` for the hub library's calls: answers are read whole, failures are ours. */
export function apiFetch(access: HubAccess, what: string): typeof fetch {
  return (input, init) =>
    withRetries(access, async () => {
      const url = input instanceof Request ? input.url : String(input);
      const watchdog = new Watchdog(access);
      try {
        const response = await access.fetch(url, {
          ...init,
          headers: headersFor(url, access, init?.headers),
          signal: watchdog.signal,
        });
        if (!response.ok) {
          await response.body?.cancel();
          throw statusFailure(response.status, what, access, response.headers.get('X-Error-Code'));
        }
        const body = await response.arrayBuffer();
        return new Response(body, { status: response.status, headers: response.headers });
      } catch (cause) {
        throw connectionFailure(cause, what, access);
      } finally {
        watchdog.stop();
      }
    });
}

/** Runs a call of the hub library and makes what it throws a NETWORK error. */
export async function hubCall<T>(access: HubAccess, what: string, call: (request: typeof fetch) => Promise<T>): Promise<T> {
  try {
    return await call(apiFetch(access, what));
  } catch (cause) {
    if (cause instanceof MatMambaError) throw cause;
    throw new HubFailure(
      `${new URL(access.endpoint).host} sent an answer for ${what} that is not the hub's: ${messageOf(cause)}`,
      {
        cause,
        hint: 'check HF_ENDPOINT; a login page of the network may be in the way',
      },
    );
  }
}

export interface Download {
  readonly url: string;
  /** The file's name, for errors. */
  readonly name: string;
  readonly size: number;
  /** Where the bytes go; what is there already is kept. */
  readonly incomplete: string;
  /** The hub's hash of the content: sha256, or git's sha1. */
  readonly hash: string | undefined;
  readonly onBytes: (loadedBytes: number) => void;
}

interface Target {
  truncate(length: number): Promise<void>;
  write(bytes: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesWritten: number }>;
}

/** One request for the rest of the file. Moves `state.loaded` on with every piece. */
async function fetchRest(access: HubAccess, download: Download, target: Target, state: { loaded: number }): Promise<void> {
  const { url, name, size } = download;
  const watchdog = new Watchdog(access);
  const restart = async (): Promise<void> => {
    await target.truncate(0);
    state.loaded = 0;
  };
  try {
    // Compressed transfer would make positions meaningless.
    const headers = headersFor(url, access, { 'Accept-Encoding': 'identity' });
    if (state.loaded > 0) headers.set('Range', `bytes=${state.loaded}-`);
    const response = await access.fetch(url, { headers, signal: watchdog.signal });
    const range = /^bytes (\d+)-/.exec(response.headers.get('Content-Range') ?? '');
    if (response.status === 416 || (response.status === 206 && Number(range?.[1]) !== state.loaded)) {
      await response.body?.cancel();
      await restart();
      throw new HubFailure(`${name}: the hub did not go on where the transfer stopped`, { hint: 'try again', retryable: true });
    }
    if (!response.ok || !response.body) {
      await response.body?.cancel();
      throw statusFailure(response.status, name, access, response.headers.get('X-Error-Code'));
    }
    if (response.status !== 206 && state.loaded > 0) await restart();
    for await (const piece of response.body as unknown as AsyncIterable<Uint8Array>) {
      watchdog.feed();
      if (state.loaded + piece.byteLength > size) {
        await restart();
        throw new HubFailure(`${name}: more than its ${size} bytes arrived`, {
          hint: 'check HF_ENDPOINT, or a proxy that changes files',
        });
      }
      await writeAll(target, piece, state.loaded, download.incomplete);
      state.loaded += piece.byteLength;
      download.onBytes(state.loaded);
    }
    if (state.loaded < size) throw new Error('it ended early');
  } catch (cause) {
    throw connectionFailure(cause, name, access);
  } finally {
    watchdog.stop();
  }
}

async function writeAll(target: Target, bytes: Uint8Array, position: number, path: string): Promise<void> {
  try {
    for (let done = 0; done < bytes.byteLength;) {
      done += (await target.write(bytes, done, bytes.byteLength - done, position + done)).bytesWritten;
    }
  } catch (cause) {
    throw fileError(cause, 'write', path);
  }
}

/** Whether a finished file has the hash the hub promised; unknown kinds of hashes pass. */
async function hashMatches(path: string, size: number, hash: string | undefined): Promise<boolean> {
  const algorithm = hash?.length === 64 ? 'sha256' : hash?.length === 40 ? 'sha1' : undefined;
  if (algorithm === undefined) return true;
  const { createHash } = await import('node:crypto');
  const { createReadStream } = await import('node:fs');
  const digest = createHash(algorithm);
  if (algorithm === 'sha1') digest.update(`blob ${size}\0`); // git hashes a header with the content
  for await (const piece of createReadStream(path, { highWaterMark: 2 ** 20 })) digest.update(piece as Uint8Array);
  return digest.digest('hex') === hash;
}

/**
 * Completes `download.incomplete`, going on from what it holds.
 * @throws NETWORK, FILE, ABORTED; the part that arrived stays for the next call
 */
export async function downloadFile(access: HubAccess, download: Download): Promise<void> {
  const { constants } = await import('node:fs');
  const { open, unlink } = await import('node:fs/promises');
  const { incomplete, name, size } = download;
  let handle;
  try {
    handle = await open(incomplete, constants.O_RDWR | constants.O_CREAT, 0o644);
  } catch (cause) {
    throw fileError(cause, 'write', incomplete);
  }
  const file = handle;
  try {
    const state = { loaded: (await file.stat()).size };
    if (state.loaded > size) {
      await file.truncate(0);
      state.loaded = 0;
    }
    download.onBytes(state.loaded);
    let before = state.loaded;
    const progressed = (): boolean => {
      const moved = state.loaded > before;
      before = state.loaded;
      return moved;
    };
    if (state.loaded < size) await withRetries(access, () => fetchRest(access, download, file, state), progressed);
    await file.sync();
  } finally {
    await file.close();
  }
  if (await hashMatches(incomplete, size, download.hash)) return;
  await unlink(incomplete).catch(() => undefined);
  throw new HubFailure(`${name} arrived damaged: its hash is not the hub's`, {
    hint: 'try again; a proxy in between may change files',
  });
}
