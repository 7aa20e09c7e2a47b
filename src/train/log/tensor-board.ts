/**
 * Scalars for TensorBoard. Each writer has an event file of its own, so a run that resumes never touches what an
 * earlier process left, whole or torn; its first event tells readers to forget the steps that are trained again.
 */

import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { fileError } from '../../checkpoint/file-errors.ts';
import { MatMambaError } from '../../errors.ts';
import { type EventContent, encodeEvent, frameRecord } from './event-record.ts';

/** Events wait in memory until there are so many bytes of them, or the oldest has waited so long. */
const FLUSH_BYTES = 64 * 1024;
const FLUSH_MS = 5000;

export interface TensorBoardOptions {
  /** Steps done when the run resumes: events of later steps in earlier files no longer count. */
  readonly resumeAfter?: number;
  /** Now, milliseconds since 1970. */
  readonly clock?: () => number;
}

/** Files that one process opened within the same second need names of their own. */
let opened = 0;

export class TensorBoardWriter {
  readonly path: string;
  readonly #file: FileHandle;
  readonly #clock: () => number;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #waitingSince = 0;
  /** Writes one after another; a failure is thrown by the next call. */
  #written: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(path: string, file: FileHandle, clock: () => number) {
    this.path = path;
    this.#file = file;
    this.#clock = clock;
  }

  /** Starts a new event file in the folder, which is made when missing. @throws FILE */
  static async create(folder: string, options: TensorBoardOptions = {}): Promise<TensorBoardWriter> {
    const { clock = Date.now, resumeAfter = 0 } = options;
    // The format that TensorBoard looks for; it orders files by name, so the time comes first.
    const seconds = String(Math.floor(clock() / 1000)).padStart(10, '0');
    const path = join(folder, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.${opened++}`);
    let file;
    try {
      await mkdir(folder, { recursive: true });
      file = await open(path, 'ax');
    } catch (cause) {
      throw fileError(cause, 'write', path);
    }
    const writer = new TensorBoardWriter(path, file, clock);
    writer.#add({ fileVersion: 'brain.Event:2' }, 0);
    if (resumeAfter > 0) writer.#add({ sessionStart: true }, resumeAfter + 1);
    await writer.flush();
    return writer;
  }

  /**
   * Adds values by tag (`loss/level 1`). They reach the file after at most a few seconds of further calls, or at `flush`.
   * @throws FILE when an earlier write failed; DISPOSED after `close`
   */
  async scalars(step: number, values: Readonly<Record<string, number>>): Promise<void> {
    this.#add({ scalars: values }, step);
    if (this.#waitingBytes >= FLUSH_BYTES || this.#clock() - this.#waitingSince >= FLUSH_MS) await this.flush();
  }

  /** Writes what waits. @throws FILE */
  async flush(): Promise<void> {
    const bytes = Buffer.concat(this.#waiting);
    this.#waiting = [];
    this.#waitingBytes = 0;
    if (bytes.length > 0) this.#written = this.#written.then(() => this.#file.appendFile(bytes));
    try {
      await this.#written;
    } catch (cause) {
      throw fileError(cause, 'write', this.path);
    }
  }

  /** Writes what waits and closes the file. Harmless when called again. @throws FILE */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.flush();
    } finally {
      await this.#file.close();
    }
  }

  #add(content: EventContent, step: number): void {
    if (this.#closed) throw new MatMambaError('DISPOSED', `${this.path} is closed`);
    const now = this.#clock();
    if (this.#waiting.length === 0) this.#waitingSince = now;
    const record = frameRecord(encodeEvent(content, step, now / 1000));
    this.#waiting.push(record);
    this.#waitingBytes += record.length;
  }
}
