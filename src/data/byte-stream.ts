/**
 * The bytes of a file as a stream, decompressed on the way: gzip by zlib, Zstandard by zlib where Node has it and by
 * fzstd elsewhere, xz by the `xz` program where there is one and by a WebAssembly build of it elsewhere.
 *
 * Invariants: memory does not grow with the file; a stream that is left early leaves no process and no open file; a
 * damaged file is a FORMAT error that names it.
 */

import { spawn } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { PassThrough, Readable, type Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import { MatMambaError, messageOf } from '../errors.ts';
import { errnoOf, fileError } from '../checkpoint/file-errors.ts';

export const COMPRESSIONS = ['none', 'gzip', 'xz', 'zstd'] as const;
export type Compression = (typeof COMPRESSIONS)[number];

const READ_BYTES = 2 ** 20;

/** The compression that a file name says, and the name without it. */
export function compressionOf(name: string): { readonly compression: Compression; readonly rest: string } {
  const found = /\.(gz|xz|zst|zstd)$/i.exec(name);
  if (!found) return { compression: 'none', rest: name };
  const compression = { g: 'gzip', x: 'xz', z: 'zstd' }[found[1]![0]!.toLowerCase() as 'g' | 'x' | 'z'] as Compression;
  return { compression, rest: name.slice(0, found.index) };
}

export interface ByteStreamOptions {
  readonly compression: Compression;
  /** Counts the bytes read from the disk. */
  readonly onRead?: (bytes: number) => void;
}

/** The decompressed bytes of a file. @throws FILE, FORMAT */
export async function* readBytes(path: string, { compression, onRead }: ByteStreamOptions): AsyncGenerator<Uint8Array, void> {
  const file = createReadStream(path, { highWaterMark: READ_BYTES });
  if (onRead) file.on('data', (piece) => onRead(piece.length));
  file.pause();
  let stop = (): void => undefined;
  try {
    if (compression === 'none') return yield* file as AsyncIterable<Uint8Array>;
    if (compression === 'xz') {
      const opened = (await xzProgram(file)) ?? { output: xzModule(file), stop };
      ({ stop } = opened);
      return yield* opened.output;
    }
    const transform = compression === 'gzip' ? zlib.createGunzip({ chunkSize: READ_BYTES }) : (nativeZstd() ?? scriptZstd());
    file.on('error', (error) => transform.destroy(error));
    yield* file.pipe(transform) as AsyncIterable<Uint8Array>;
  } catch (cause) {
    if (cause instanceof MatMambaError) throw cause;
    const code = errnoOf(cause);
    // What the disk says has an errno in capitals; what zlib says has Z_.
    if (code !== undefined && /^E[A-Z]+$/.test(code)) throw fileError(cause, 'read', path);
    throw new MatMambaError('FORMAT', `${path} is damaged, or is not ${compression}: ${messageOf(cause)}`, {
      cause,
      hint: 'copy or download it again',
    });
  } finally {
    stop();
    file.destroy();
  }
}

/** zlib's own decompressor for Zstandard: Node 22.15 and later. */
function nativeZstd(): Transform | undefined {
  const { createZstdDecompress } = zlib as { createZstdDecompress?: (options?: object) => Transform };
  return createZstdDecompress?.({ chunkSize: READ_BYTES });
}

function scriptZstd(): Transform {
  const through = new PassThrough({ readableHighWaterMark: READ_BYTES });
  let push: ((piece: Uint8Array, final?: boolean) => void) | undefined;
  let pieces: Uint8Array[] = [];
  let received = 0;
  through._transform = (piece: Uint8Array, _encoding, done): void => {
    void (async (): Promise<void> => {
      try {
        if (!push) {
          const { Decompress } = await import('fzstd');
          const inflate = new Decompress((out) => void (out.length > 0 && pieces.push(out)));
          push = (bytes, final) => inflate.push(bytes, final);
        }
        received += piece.length;
        push(piece);
        for (const out of pieces) through.push(out);
        pieces = [];
        done();
      } catch (error) {
        done(error as Error);
      }
    })();
  };
  through._flush = (done): void => {
    try {
      if (received === 0) throw new Error('the file is empty');
      push?.(new Uint8Array(0), true);
      for (const out of pieces) through.push(out);
      done();
    } catch (error) {
      done(error as Error);
    }
  };
  return through;
}

interface XzOutput {
  readonly output: AsyncIterable<Uint8Array>;
  readonly stop: () => void;
}

/** The `xz` program; `undefined` where there is none. It runs beside us, on a core of its own. */
async function xzProgram(file: Readable): Promise<XzOutput | undefined> {
  const child = spawn('xz', ['--decompress', '--stdout'], { stdio: ['pipe', 'pipe', 'pipe'], windowsHide: true });
  const started = await new Promise<boolean>((resolve) => {
    child.once('spawn', () => resolve(true));
    child.once('error', () => resolve(false));
  });
  if (!started) return undefined;
  let said = '';
  child.stderr.on('data', (piece: Buffer) => void (said.length < 1000 && (said += piece.toString())));
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  // A program that has seen enough closes its input; its exit status tells why.
  child.stdin.on('error', () => undefined);
  let failure: Error | undefined;
  file.on('error', (error) => {
    failure = error;
    child.kill();
  });
  file.pipe(child.stdin);
  async function* output(): AsyncGenerator<Uint8Array, void> {
    yield* child.stdout as AsyncIterable<Uint8Array>;
    const status = await ended;
    if (failure) throw failure;
    if (status !== 0) throw new Error(said.replace(/^.*\(stdin\): /, '').trim() || `xz ended with status ${status}`);
  }
  return { output: output(), stop: () => void child.kill() };
}

async function* xzModule(file: Readable): AsyncGenerator<Uint8Array, void> {
  const { default: library } = await import('xz-decompress');
  yield* new library.XzReadableStream(Readable.toWeb(file) as ReadableStream<Uint8Array>) as unknown as AsyncIterable<Uint8Array>;
}

/** Leaves out the first `count` bytes. */
export async function* skipBytes(source: AsyncIterable<Uint8Array>, count: number): AsyncGenerator<Uint8Array, void> {
  let left = count;
  for await (const piece of source) {
    if (left >= piece.length) left -= piece.length;
    else {
      yield left > 0 ? piece.subarray(left) : piece;
      left = 0;
    }
  }
}
