/**
 * The log of a run as JSON lines: one object with a `step` a line, in the order of steps. It is what curves are drawn
 * from, so a run that resumes takes back the lines of steps that it trains again: in the end the file is that of an
 * unbroken run.
 */

import { type FileHandle, open, readFile } from 'node:fs/promises';
import { writeFileAtomic } from '../../checkpoint/atomic-file.ts';
import { errnoOf, fileError } from '../../checkpoint/file-errors.ts';
import { MatMambaError } from '../../errors.ts';

/** A line: the step it belongs to (steps done), and anything else that JSON can hold. */
export interface LogEntry {
  readonly step: number;
  readonly [key: string]: unknown;
}

/** Entries of a log file, oldest first; a last line that a killed process left unfinished is left out. @throws FILE, FORMAT */
export async function readJsonLines(path: string): Promise<LogEntry[]> {
  const text = await readText(path);
  return parse(text, path).entries;
}

export class JsonLinesLog {
  readonly path: string;
  readonly #file: FileHandle;
  #closed = false;

  private constructor(path: string, file: FileHandle) {
    this.path = path;
    this.#file = file;
  }

  /**
   * Opens a log to append to, made when missing. Entries of steps after `resumeAfter` go, and an unfinished last line.
   * @throws FILE; FORMAT when the file is no such log, which then stays as it is
   */
  static async open(path: string, options: { readonly resumeAfter?: number } = {}): Promise<JsonLinesLog> {
    const { resumeAfter = Infinity } = options;
    const text = await readText(path);
    const { lines, entries } = parse(text, path);
    const kept = lines.filter((_, i) => entries[i]!.step <= resumeAfter);
    const repaired = kept.map((line) => `${line}\n`).join('');
    if (repaired !== text) await writeFileAtomic(path, repaired);
    try {
      return new JsonLinesLog(path, await open(path, 'a'));
    } catch (cause) {
      throw fileError(cause, 'write', path);
    }
  }

  /** Appends a line; it is in the file, though perhaps not on the disk, when the promise settles. @throws FILE, DISPOSED */
  async append(entry: LogEntry): Promise<void> {
    if (this.#closed) throw new MatMambaError('DISPOSED', `${this.path} is closed`);
    try {
      await this.#file.appendFile(`${JSON.stringify(entry)}\n`);
    } catch (cause) {
      throw fileError(cause, 'write', this.path);
    }
  }

  /** Puts everything on the disk: before a checkpoint that counts on it. @throws FILE */
  async flush(): Promise<void> {
    try {
      await this.#file.sync();
    } catch (cause) {
      throw fileError(cause, 'write', this.path);
    }
  }

  /** Harmless when called again. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
  }
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return '';
    throw fileError(cause, 'read', path);
  }
}

/** Whole lines and what they say. @throws FORMAT naming the line */
function parse(text: string, path: string): { lines: string[]; entries: LogEntry[] } {
  const lines = text.split('\n');
  // What stands after the last line break is unfinished, or nothing.
  lines.pop();
  const entries = lines.map((line, i) => {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      // Refused below.
    }
    if (typeof (value as { step?: unknown } | null | undefined)?.step === 'number') return value as LogEntry;
    throw new MatMambaError('FORMAT', `${path}: line ${i + 1} is no log entry`, {
      hint: 'move the file away or repair the line',
    });
  });
  return { lines, entries };
}
