/**
 * Random access to the bytes of a checkpoint: a file in Node, bytes in memory, or a browser's Blob.
 *
 * Invariants: `read` answers exactly the bytes asked for, in an array of its own that starts at offset 0 (so it is
 * aligned for every dtype), or throws; it may be called concurrently. Node's modules are imported when a file is
 * opened, so a browser bundle holds none of them.
 */

import { MatMambaError, throwIfAborted } from '../errors.ts';
import { fileError } from './file-errors.ts';

/** Bytes of one piece when something large is read or written. */
export const PIECE_BYTES = 16 * 2 ** 20;

export interface ByteSource {
  /** What errors call it: a path or a URL. */
  readonly name: string;
  /** Bytes in all. */
  readonly size: number;
  /**
   * `length` bytes from `offset` on, as the caller's own copy.
   * @throws FORMAT when they reach past the end; FILE, ABORTED, DISPOSED
   */
  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** @throws FORMAT when the range is not inside the source; INTERNAL when it is no range at all */
function checkRange(source: { name: string; size: number }, offset: number, length: number): void {
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) {
    throw new MatMambaError('INTERNAL', `${source.name}: cannot read ${length} bytes at ${offset}`);
  }
  if (offset + length > source.size) {
    throw new MatMambaError(
      'FORMAT',
      `${source.name} ends at byte ${source.size}, but bytes ${offset} to ${offset + length} are needed`,
      {
        hint: 'the file is truncated or damaged: download or save it again',
      },
    );
  }
}

/** An array for `length` bytes. @throws MEMORY when the engine has none that large */
export function allocateBytes(length: number, what: string): Uint8Array {
  try {
    return new Uint8Array(length);
  } catch (cause) {
    throw new MatMambaError('MEMORY', `${what}: no memory for ${length} bytes at once`, {
      cause,
      hint: 'read it in smaller pieces',
    });
  }
}

/** Bytes that are in memory already. The array is not copied; do not change it while the source is in use. */
export function memorySource(bytes: Uint8Array, name = 'bytes in memory'): ByteSource {
  return {
    name,
    size: bytes.byteLength,
    async read(offset, length, signal) {
      throwIfAborted(signal);
      checkRange(this, offset, length);
      const copy = allocateBytes(length, name);
      copy.set(bytes.subarray(offset, offset + length));
      return copy;
    },
    async close() {},
  };
}

/** A browser's Blob or File (also Node's `openAsBlob`). */
export function blobSource(blob: Blob, name = 'blob'): ByteSource {
  return {
    name,
    size: blob.size,
    async read(offset, length, signal) {
      throwIfAborted(signal);
      checkRange(this, offset, length);
      try {
        return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
      } catch (cause) {
        throw fileError(cause, 'read', name);
      }
    },
    async close() {},
  };
}

/**
 * Opens a file for positioned reads (Node only).
 * @throws FILE when it cannot be opened or is not a regular file
 */
export async function fileSource(path: string): Promise<ByteSource> {
  const { open } = await import('node:fs/promises');
  let handle;
  let size: number;
  try {
    handle = await open(path, 'r');
    const stats = await handle.stat();
    if (!stats.isFile()) {
      throw new MatMambaError('FILE', `${path} is ${stats.isDirectory() ? 'a folder' : 'not a regular file'}`, {
        hint: 'name a file',
      });
    }
    ({ size } = stats);
  } catch (cause) {
    await handle?.close().catch(() => undefined);
    throw fileError(cause, 'open', path);
  }
  const file = handle;
  let closed = false;
  const source: ByteSource = {
    name: path,
    size,
    async read(offset, length, signal) {
      if (closed) throw new MatMambaError('DISPOSED', `${path} was closed`);
      checkRange(source, offset, length);
      const bytes = allocateBytes(length, path);
      let done = 0;
      while (done < length) {
        throwIfAborted(signal);
        let bytesRead: number;
        try {
          ({ bytesRead } = await file.read(bytes, done, Math.min(length - done, PIECE_BYTES), offset + done));
        } catch (cause) {
          throw closed ? new MatMambaError('DISPOSED', `${path} was closed`) : fileError(cause, 'read', path);
        }
        if (bytesRead === 0) {
          throw new MatMambaError('FORMAT', `${path} became shorter while it was read (byte ${offset + done})`, {
            hint: 'something else is writing the file; wait until it is done',
          });
        }
        done += bytesRead;
      }
      return bytes;
    },
    async close() {
      if (closed) return;
      closed = true;
      await file.close();
    },
  };
  return source;
}
