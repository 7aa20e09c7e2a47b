/**
 * Several token files as one long run of tokens, read by position: nothing but what is asked for is ever in memory, and
 * of many files only some are open at a time.
 */

import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileError } from '../checkpoint/file-errors.ts';
import { MatMambaError, throwIfAborted } from '../errors.ts';
import { byCharacters } from './inputs.ts';
import { TokenFile } from './token-file.ts';

const MOST_OPEN = 64;

interface Part {
  readonly path: string;
  /** Tokens before it. */
  readonly start: number;
  readonly length: number;
}

interface OpenFile {
  readonly file: Promise<TokenFile>;
  users: number;
}

/** The token files of a folder for one purpose, sorted by name; a file stands for itself. @throws FILE */
export async function listTokenFiles(source: string, split: 'train' | 'val' = 'train'): Promise<string[]> {
  const stats = await stat(source).catch((cause: unknown) => Promise.reject(fileError(cause, 'read', source)));
  if (!stats.isDirectory()) return [source];
  const names = (await readdir(source)).filter((name) => name.startsWith(split) && name.endsWith('.bin')).sort(byCharacters);
  if (names.length > 0) return names.map((name) => join(source, name));
  throw new MatMambaError('FILE', `${source} holds no ${split} shards (${split}_*.bin)`, {
    hint:
      split === 'train'
        ? 'make them with: matmamba data text; all may have gone to validation: see --validation-tokens'
        : 'prepare the data with --validation-tokens',
  });
}

export class TokenSet implements AsyncDisposable {
  readonly paths: readonly string[];
  /** Tokens of all files. */
  readonly length: number;
  readonly #parts: readonly Part[];
  /** In the order of their last use. */
  readonly #open = new Map<string, OpenFile>();
  readonly #reading = new Set<Promise<Uint16Array>>();
  #closed = false;

  private constructor(parts: readonly Part[]) {
    this.#parts = parts;
    this.paths = parts.map(({ path }) => path);
    this.length = parts.reduce((sum, { length }) => sum + length, 0);
  }

  /** @throws FILE, FORMAT for a wrong magic number, a wrong count or a file that is too short */
  static async open(paths: readonly string[], signal?: AbortSignal): Promise<TokenSet> {
    const parts: Part[] = [];
    let start = 0;
    for (const path of paths) {
      throwIfAborted(signal);
      await using file = await TokenFile.open(path);
      parts.push({ path, start, length: file.length });
      start += file.length;
    }
    return new TokenSet(parts);
  }

  /**
   * Tokens `first .. first + count`, wherever files end.
   * @throws TOKEN naming file and position of an id that is `vocabSize` or above; FILE, FORMAT; DISPOSED
   */
  async read(first: number, count: number, vocabSize: number): Promise<Uint16Array> {
    if (this.#closed) throw new MatMambaError('DISPOSED', 'the token files are closed');
    const reading = this.#read(first, count, vocabSize);
    this.#reading.add(reading);
    try {
      return await reading;
    } finally {
      this.#reading.delete(reading);
    }
  }

  async #read(first: number, count: number, vocabSize: number): Promise<Uint16Array> {
    if (first < 0 || first + count > this.length)
      throw new MatMambaError('FORMAT', `there are ${this.length} tokens, not tokens ${first} to ${first + count}`);
    let at = this.#partAt(first);
    const whole = this.#parts[at]!;
    if (first - whole.start + count <= whole.length) return this.#readPart(whole, first - whole.start, count, vocabSize);
    const out = new Uint16Array(count);
    for (let done = 0; done < count; at++) {
      const part = this.#parts[at]!;
      const from = first + done - part.start;
      const piece = await this.#readPart(part, from, Math.min(count - done, part.length - from), vocabSize);
      out.set(piece, done);
      done += piece.length;
    }
    return out;
  }

  /** The part that holds a token. */
  #partAt(token: number): number {
    let low = 0;
    for (let high = this.#parts.length - 1; low < high;) {
      const middle = (low + high + 1) >> 1;
      if (this.#parts[middle]!.start <= token) low = middle;
      else high = middle - 1;
    }
    // Empty files share their start with the one after them; the search ends at the last of these.
    return low;
  }

  async #readPart({ path }: Part, first: number, count: number, vocabSize: number): Promise<Uint16Array> {
    const entry = this.#open.get(path) ?? { file: TokenFile.open(path), users: 0 };
    this.#open.delete(path);
    this.#open.set(path, entry);
    entry.users++;
    try {
      return await (await entry.file).readIds(first, count, vocabSize);
    } catch (error) {
      // An opening that failed is tried again next time.
      await entry.file.catch(() => this.#open.delete(path));
      throw error;
    } finally {
      entry.users--;
      await this.#closeOldest();
    }
  }

  async #closeOldest(): Promise<void> {
    for (const [path, { file, users }] of this.#open) {
      if (this.#open.size <= MOST_OPEN) return;
      if (users > 0) continue;
      this.#open.delete(path);
      await (await file).close();
    }
  }

  /** Waits for reads that are under way, then closes all files. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#reading);
    const open = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(open.map(async ({ file }) => (await file.catch(() => undefined))?.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
