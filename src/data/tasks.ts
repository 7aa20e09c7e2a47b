/**
 * Cuts input files into tasks for the workers: about a megabyte of whole lines, of pieces of a text, or a row group.
 *
 * Invariants: a task's `position` is all that is needed to go on from it in another run; what the tasks of a file hold,
 * joined, does not depend on where they are cut; memory is that of one task (a row group of a Parquet file is one).
 */

import { MatMambaError } from '../errors.ts';
import { readBytes, skipBytes } from './byte-stream.ts';
import type { InputFile } from './inputs.ts';
import { openParquet } from './parquet.ts';
import { PieceScanner } from './pieces.ts';

/** How text files are divided into documents. */
export const SPLITS = ['file', 'blank-line', 'line'] as const;
export type Split = (typeof SPLITS)[number];

/** Where a task begins in its file. */
export interface Position {
  /** Bytes (after decompression) before it. */
  readonly offset: number;
  /** Lines before it. */
  readonly line: number;
  /** Row groups before it. */
  readonly group: number;
  /** It goes on with a document that began earlier. */
  readonly continued: boolean;
}

export const FILE_START: Position = { offset: 0, line: 0, group: 0, continued: false };

/** What a worker gets. */
export type Work =
  | { readonly kind: 'jsonl'; readonly name: string; readonly bytes: Uint8Array; readonly firstLine: number }
  | {
      readonly kind: 'text';
      readonly bytes: Uint8Array;
      readonly split: Split;
      readonly continued: boolean;
      readonly last: boolean;
    }
  | { readonly kind: 'parquet'; readonly name: string; readonly path: string; readonly group: number };

export interface Task {
  readonly position: Position;
  readonly work: Work;
  /** Bytes of the file read so far, as it lies on the disk. */
  readonly readBytes: number;
}

export interface TaskOptions {
  readonly column: string;
  readonly split: Split;
  readonly pieceParagraphs: number;
  /** Bytes that a task aims at; for tests. */
  readonly taskBytes?: number;
}

const TASK_BYTES = 2 ** 20;
/** A text without a place to cut is cut anyway when it is this long; a line this long is refused. */
const LONGEST = 2 ** 28;

/** The tasks of a file from a position on. @throws FILE, FORMAT, NETWORK */
export async function* tasksOf(file: InputFile, from: Position, options: TaskOptions): AsyncGenerator<Task, void> {
  const path = await file.locate();
  if (file.format === 'parquet') return yield* parquetTasks(file, path, from, options.column);
  let read = 0;
  const count = (bytes: number): void => void (read += bytes);
  const source = skipBytes(readBytes(path, { compression: file.compression, onRead: count }), from.offset);
  const aim = options.taskBytes ?? TASK_BYTES;
  const cutter =
    file.format === 'text' && options.split === 'file'
      ? new TextCutter(options.pieceParagraphs)
      : new LineCutter(file, options.split);
  let { offset, line, continued } = from;
  let any = false;
  for await (const { bytes, last } of blocks(source, aim, cutter)) {
    any = true;
    const work: Work =
      file.format === 'jsonl'
        ? { kind: 'jsonl', name: file.name, bytes, firstLine: line + 1 }
        : { kind: 'text', bytes, split: options.split, continued, last };
    // Counted before the task is handed out: its bytes may move to a worker.
    const next = {
      offset: offset + bytes.length,
      line: line + (file.format === 'jsonl' ? countLines(bytes) : 0),
      continued: file.format === 'text',
    };
    yield { position: { offset, line, group: 0, continued }, work, readBytes: read };
    ({ offset, line, continued } = next);
  }
  if (!any && from.offset === 0)
    throw new MatMambaError('FORMAT', `${file.name} is empty`, { hint: 'leave it out, or go on without it: --skip-bad' });
}

async function* parquetTasks(file: InputFile, path: string, from: Position, column: string): AsyncGenerator<Task, void> {
  const parquet = await openParquet(path, file.name);
  let groups: number;
  try {
    groups = parquet.groupsOf(column);
  } finally {
    await parquet.close();
  }
  for (let group = from.group; group < groups; group++) {
    yield {
      position: { ...FILE_START, group },
      work: { kind: 'parquet', name: file.name, path, group },
      readBytes: (file.bytes * (group + 1)) / groups,
    };
  }
}

interface Cutter {
  /** How many of the bytes may go; 0 when there is no place to cut yet. */
  cut(bytes: Buffer): number;
}

class LineCutter implements Cutter {
  readonly #file: InputFile;
  readonly #separators: readonly string[];

  constructor(file: InputFile, split: Split) {
    this.#file = file;
    this.#separators = file.format === 'text' && split === 'blank-line' ? ['\n\n', '\n\r\n'] : ['\n'];
  }

  cut(bytes: Buffer): number {
    const ends = this.#separators.map((separator) => {
      const at = bytes.lastIndexOf(separator, undefined, 'latin1');
      return at < 0 ? 0 : at + separator.length;
    });
    const end = Math.max(...ends);
    if (end > 0) return end;
    if (bytes.length < LONGEST) return 0;
    throw new MatMambaError('FORMAT', `${this.#file.name} has a line of more than ${LONGEST} bytes`, {
      hint: 'it is no file of lines: name its kind with --format, or divide it with --split file',
    });
  }
}

class TextCutter implements Cutter {
  readonly #scanner: PieceScanner;

  constructor(paragraphs: number) {
    this.#scanner = new PieceScanner(paragraphs);
  }

  cut(bytes: Buffer): number {
    let cut = this.#scanner.scan(bytes);
    // No blank lines: cut in front of white space, which a character other than it precedes.
    for (let at = bytes.length - 1; cut === 0 && bytes.length >= LONGEST && at > 0; at--) {
      if ((bytes[at] === 32 || bytes[at] === 10) && bytes[at - 1]! > 32 && bytes[at - 1]! < 127) cut = at;
    }
    if (cut === 0 && bytes.length >= LONGEST)
      throw new MatMambaError('FORMAT', `a text has ${LONGEST} bytes without any white space`);
    this.#scanner.shift(cut);
    return cut;
  }
}

/** Joins what a stream brings into blocks of about `aim` bytes, cut where the cutter says. */
async function* blocks(
  source: AsyncIterable<Uint8Array>,
  aim: number,
  cutter: Cutter,
): AsyncGenerator<{ bytes: Uint8Array; last: boolean }, void> {
  let held: Uint8Array[] = [];
  let length = 0;
  let wanted = aim;
  for await (const piece of source) {
    held.push(piece);
    length += piece.length;
    if (length < wanted) continue;
    const joined = Buffer.concat(held, length);
    const cut = cutter.cut(joined);
    held = [joined];
    // Looking again at every piece would take quadratic time.
    wanted = cut > 0 ? aim : 2 * length;
    if (cut === 0) continue;
    const rest = joined.subarray(cut);
    held = [rest];
    length = rest.length;
    yield { bytes: new Uint8Array(joined.subarray(0, cut)), last: false };
  }
  // The end of the last document must be told, so an empty rest counts too where something went before.
  if (length > 0) yield { bytes: new Uint8Array(Buffer.concat(held, length)), last: true };
}

function countLines(bytes: Uint8Array): number {
  let lines = 0;
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) lines++;
  return lines;
}
