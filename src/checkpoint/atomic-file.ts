/**
 * Files that appear whole or not at all: written under a temporary name in the same folder, flushed to the disk, then
 * renamed over the old file.
 *
 * Invariants: until `publish` the old file is untouched; after any failure the temporary file is gone. Node only.
 */

import { MatMambaError } from '../errors.ts';
import { fileError } from './file-errors.ts';
import { PIECE_BYTES } from './source.ts';

/** What is needed of an open file; `FileHandle` of `node:fs/promises` fits. Tests put a failing one in its place. */
export interface WritableFile {
  write(bytes: Uint8Array, offset: number, length: number): Promise<{ bytesWritten: number }>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

export type OpenForWriting = (path: string) => Promise<WritableFile>;

async function openNew(path: string): Promise<WritableFile> {
  const { open } = await import('node:fs/promises');
  return open(path, 'wx');
}

/** One file on its way to the disk. Call `finish`, then `publish`; call `discard` when anything else failed. */
export class AtomicFile {
  readonly path: string;
  /** Bytes written so far. */
  size = 0;
  readonly #temporary: string;
  #file: WritableFile | undefined;

  private constructor(path: string, temporary: string, file: WritableFile) {
    this.path = path;
    this.#temporary = temporary;
    this.#file = file;
  }

  /** Opens the temporary file beside `path`. @throws FILE */
  static async create(path: string, open: OpenForWriting = openNew): Promise<AtomicFile> {
    const { basename, dirname, join } = await import('node:path');
    const random = Math.floor(Math.random() * 2 ** 48).toString(36);
    const temporary = join(dirname(path), `.${basename(path).slice(0, 200)}.${random}.${process.pid}.tmp`);
    try {
      return new AtomicFile(path, temporary, await open(temporary));
    } catch (cause) {
      throw fileError(cause, 'write', path);
    }
  }

  /** Appends bytes. @throws FILE, after which the temporary file is gone */
  async write(bytes: Uint8Array): Promise<void> {
    const file = this.#file;
    if (!file) throw new MatMambaError('INTERNAL', `${this.path}: written after it was finished`);
    try {
      for (let done = 0; done < bytes.byteLength;) {
        const { bytesWritten } = await file.write(bytes, done, Math.min(PIECE_BYTES, bytes.byteLength - done));
        if (bytesWritten <= 0) throw Object.assign(new Error('no bytes were written'), { code: 'ENOSPC' });
        done += bytesWritten;
      }
    } catch (cause) {
      await this.discard();
      throw fileError(cause, 'write', this.path);
    }
    this.size += bytes.byteLength;
  }

  /** Flushes to the disk and closes; the file still has its temporary name. @throws FILE */
  async finish(): Promise<void> {
    try {
      await this.#file?.sync();
      await this.#file?.close();
      this.#file = undefined;
    } catch (cause) {
      await this.discard();
      throw fileError(cause, 'write', this.path);
    }
  }

  /** Gives the finished file its name, replacing the old file in one step. @throws FILE */
  async publish(): Promise<void> {
    const { open, rename } = await import('node:fs/promises');
    const { dirname } = await import('node:path');
    try {
      await rename(this.#temporary, this.path);
    } catch (cause) {
      await this.discard();
      throw fileError(cause, 'write', this.path);
    }
    // The rename itself survives a power cut only once the folder is flushed. Some systems cannot flush a folder.
    const folder = await open(dirname(this.path), 'r').catch(() => undefined);
    await folder?.sync().catch(() => undefined);
    await folder?.close().catch(() => undefined);
  }

  /** Removes the temporary file. Never throws; harmless after `publish`. */
  async discard(): Promise<void> {
    const { unlink } = await import('node:fs/promises');
    await this.#file?.close().catch(() => undefined);
    this.#file = undefined;
    await unlink(this.#temporary).catch(() => undefined);
  }
}

/**
 * Writes a whole file so that a reader sees the old content or the new, never a part.
 * @throws FILE with the old file intact
 */
export async function writeFileAtomic(
  path: string,
  data: Uint8Array | string,
  options: { open?: OpenForWriting } = {},
): Promise<void> {
  const file = await AtomicFile.create(path, options.open);
  await file.write(typeof data === 'string' ? new TextEncoder().encode(data) : data);
  await file.finish();
  await file.publish();
}
