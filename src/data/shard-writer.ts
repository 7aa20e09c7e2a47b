/**
 * Writes ids to token files of a fixed number of tokens, one after the other, in llm.c's format.
 *
 * Invariants: a file appears under its name whole or not at all; a shard's hash is that of the whole file; memory does
 * not grow with the shard.
 */

import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, open, readdir, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fileError } from '../checkpoint/file-errors.ts';
import { TOKEN_FILE_HEADER_BYTES, TOKEN_FILE_MAGIC, TOKEN_FILE_VERSION } from './token-file.ts';

/** A finished token file. */
export interface Shard {
  readonly file: string;
  readonly split: 'train' | 'val';
  readonly tokens: number;
  readonly bytes: number;
  readonly sha256: string;
}

/** What is needed of an open file; tests put one in its place that fails. */
export type ShardFile = Pick<FileHandle, 'write' | 'sync' | 'close'>;

const BUFFER_TOKENS = 2 ** 20;

/** The 1,024 bytes before the tokens. */
export function tokenFileHeader(tokens: number): Uint8Array {
  const header = new DataView(new ArrayBuffer(TOKEN_FILE_HEADER_BYTES));
  for (const [i, value] of [TOKEN_FILE_MAGIC, TOKEN_FILE_VERSION, tokens].entries()) header.setInt32(4 * i, value, true);
  return new Uint8Array(header.buffer);
}

/** Ids as little-endian bytes. */
function littleEndian(ids: Uint16Array): Uint8Array {
  const bytes = Buffer.from(ids.buffer, ids.byteOffset, ids.byteLength);
  return new Uint8Array(Uint16Array.of(1).buffer)[0] === 1 ? bytes : Buffer.from(bytes).swap16();
}

export class ShardWriter {
  readonly #path: string;
  readonly #temporary: string;
  readonly #file: ShardFile;
  readonly #expected: number;
  readonly #hash: Hash;
  readonly #buffer: Uint16Array;
  #held = 0;
  /** Tokens taken so far. */
  tokens = 0;

  private constructor(path: string, temporary: string, file: ShardFile, expected: number) {
    this.#path = path;
    this.#temporary = temporary;
    this.#file = file;
    this.#expected = expected;
    this.#buffer = new Uint16Array(Math.min(expected, BUFFER_TOKENS));
    this.#hash = createHash('sha256').update(tokenFileHeader(expected));
  }

  /** Opens a shard that is to hold `expected` tokens. @throws FILE */
  static async create(
    folder: string,
    name: string,
    expected: number,
    opener = (path: string): Promise<ShardFile> => open(path, 'w'),
  ): Promise<ShardWriter> {
    const path = join(folder, name);
    const temporary = join(folder, temporaryName(name));
    try {
      return new ShardWriter(path, temporary, await opener(temporary), expected);
    } catch (cause) {
      throw fileError(cause, 'write', path);
    }
  }

  get room(): number {
    return this.#expected - this.tokens;
  }

  /** Takes ids, at most `room` of them. @throws FILE */
  async write(ids: Uint16Array): Promise<void> {
    this.tokens += ids.length;
    for (let from = 0; from < ids.length;) {
      const part = ids.subarray(from, from + this.#buffer.length - this.#held);
      this.#buffer.set(part, this.#held);
      this.#held += part.length;
      from += part.length;
      if (this.#held === this.#buffer.length) await this.#flush(this.tokens - (ids.length - from));
    }
  }

  async #flush(tokens: number): Promise<void> {
    const bytes = littleEndian(this.#buffer.subarray(0, this.#held));
    const position = TOKEN_FILE_HEADER_BYTES + 2 * (tokens - this.#held);
    this.#held = 0;
    this.#hash.update(bytes);
    await this.#put(bytes, position);
  }

  async #put(bytes: Uint8Array, position: number): Promise<void> {
    try {
      for (let done = 0; done < bytes.length;) {
        const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, position + done);
        if (bytesWritten <= 0) throw Object.assign(new Error('no bytes were written'), { code: 'ENOSPC' });
        done += bytesWritten;
      }
    } catch (cause) {
      await this.discard();
      throw fileError(cause, 'write', this.#path);
    }
  }

  /** Completes the file, flushes it to the disk and gives it its name. @throws FILE */
  async finish(): Promise<Omit<Shard, 'file' | 'split'>> {
    if (this.#held > 0) await this.#flush(this.tokens);
    await this.#put(tokenFileHeader(this.tokens), 0);
    try {
      await this.#file.sync();
      await this.#file.close();
      // The header was hashed with the count that was expected.
      const sha256 = this.room === 0 ? this.#hash.digest('hex') : await hashFile(this.#temporary);
      await rename(this.#temporary, this.#path);
      return { tokens: this.tokens, bytes: TOKEN_FILE_HEADER_BYTES + 2 * this.tokens, sha256 };
    } catch (cause) {
      await this.discard();
      throw fileError(cause, 'write', this.#path);
    }
  }

  /** Removes what was written. Never throws. */
  async discard(): Promise<void> {
    await this.#file.close().catch(() => undefined);
    await unlink(this.#temporary).catch(() => undefined);
  }
}

const temporaryName = (name: string): string => `.${name}.${process.pid}.tmp`;

/** Removes what runs that were killed left behind of the files whose name fits; atomic files add a random part to it. */
export async function removeLeftovers(folder: string, isMine: (name: string) => boolean): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const found = /^\.(.+)\.(\d+)\.tmp$/.exec(name);
    if (found && (isMine(found[1]!) || isMine(found[1]!.replace(/\.\w+$/, ''))) && !isRunning(Number(found[2])))
      await unlink(join(folder, name)).catch(() => undefined);
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** The SHA-256 of a file. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path, { highWaterMark: 2 ** 20 })) hash.update(piece as Uint8Array);
  return hash.digest('hex');
}
