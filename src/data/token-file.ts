/**
 * Token files in the format of llm.c: a header of 256 little-endian int32 (magic 20240520, version 1, number of
 * tokens), then the tokens as uint16. Read by position: a file of many gigabytes costs no memory.
 */

import { open, type FileHandle } from 'node:fs/promises';
import { MatMambaError, throwIfAborted } from '../errors.ts';

export const TOKEN_FILE_MAGIC = 20240520;
export const TOKEN_FILE_VERSION = 1;
export const TOKEN_FILE_HEADER_BYTES = 1024;
const TOKEN_BYTES = 2;
const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

export class TokenFile implements AsyncDisposable {
  readonly path: string;
  /** Number of tokens in the file. */
  readonly length: number;
  readonly #file: FileHandle;

  private constructor(path: string, length: number, file: FileHandle) {
    this.path = path;
    this.length = length;
    this.#file = file;
  }

  /** @throws FILE when it cannot be read; FORMAT when it is no token file, or shorter than it says */
  static async open(path: string): Promise<TokenFile> {
    const file = await open(path, 'r').catch((cause: NodeJS.ErrnoException) => {
      throw new MatMambaError(
        'FILE',
        cause.code === 'ENOENT' ? `there is no file ${path}` : `cannot read ${path}: ${cause.message}`,
        { cause },
      );
    });
    try {
      const stats = await file.stat();
      if (stats.isDirectory()) throw new MatMambaError('FILE', `${path} is a folder, not a token file`);
      return new TokenFile(path, await readHeader(path, file, stats.size), file);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /**
   * Tokens `first .. first + count`.
   * @throws FORMAT when the file has no such tokens; TOKEN naming the position of an id that is `vocabSize` or above
   */
  async read(first: number, count: number, vocabSize = Infinity, signal?: AbortSignal): Promise<Int32Array> {
    throwIfAborted(signal);
    return new Int32Array(await this.readIds(first, count, vocabSize));
  }

  /** The same as 16-bit numbers, which is how the file holds them. @throws as `read` */
  async readIds(first: number, count: number, vocabSize = Infinity): Promise<Uint16Array> {
    if (first < 0 || count < 0 || first + count > this.length) {
      throw new MatMambaError('FORMAT', `${this.path} holds ${this.length} tokens, not tokens ${first} to ${first + count}`);
    }
    const bytes = await readBytes(this.path, this.#file, TOKEN_FILE_HEADER_BYTES + TOKEN_BYTES * first, TOKEN_BYTES * count);
    const tokens = LITTLE_ENDIAN ? new Uint16Array(bytes.buffer) : new Uint16Array(Buffer.from(bytes.buffer).swap16().buffer);
    if (vocabSize >= 2 ** 16) return tokens;
    const bad = tokens.findIndex((id) => id >= vocabSize);
    if (bad < 0) return tokens;
    throw new MatMambaError(
      'TOKEN',
      `${this.path}: token ${tokens[bad]} at position ${first + bad} is outside the vocabulary of ${vocabSize}`,
      {
        hint: 'the file was made with the tokenizer of another model',
      },
    );
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** The number of tokens that the header promises and the file holds. */
async function readHeader(path: string, file: FileHandle, size: number): Promise<number> {
  const hint = `a token file starts with 256 int32: magic ${TOKEN_FILE_MAGIC}, version ${TOKEN_FILE_VERSION}, the number of tokens`;
  if (size < TOKEN_FILE_HEADER_BYTES)
    throw new MatMambaError('FORMAT', `${path} is no token file: ${size} bytes hold no header`, { hint });
  const bytes = await readBytes(path, file, 0, TOKEN_FILE_HEADER_BYTES);
  const header = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [magic, version, count] = [0, 4, 8].map((at) => header.getInt32(at, true)) as [number, number, number];
  if (magic !== TOKEN_FILE_MAGIC)
    throw new MatMambaError('FORMAT', `${path} is no token file: its magic number is ${magic}`, { hint });
  if (version !== TOKEN_FILE_VERSION) {
    throw new MatMambaError(
      'FORMAT',
      `${path} is a token file of version ${version}; version ${TOKEN_FILE_VERSION} (uint16 tokens) is supported`,
    );
  }
  const held = Math.floor((size - TOKEN_FILE_HEADER_BYTES) / TOKEN_BYTES);
  if (count >= 0 && count <= held) return count;
  throw new MatMambaError('FORMAT', `${path} is cut off: its header says ${count} tokens, the file holds ${held}`, {
    hint: 'copy or download it again',
  });
}

async function readBytes(path: string, file: FileHandle, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const { bytesRead } = await file.read(bytes, done, length - done, position + done).catch((cause: Error) => {
      throw new MatMambaError('FILE', `cannot read ${path}: ${cause.message}`, { cause });
    });
    if (bytesRead === 0) throw new MatMambaError('FORMAT', `${path} became shorter while it was read`);
    done += bytesRead;
  }
  return bytes;
}
