/**
 * What a worker does with a task: takes the documents out of it and turns them into ids, the end token before or after
 * each; or counts their words, to train a tokenizer.
 */

import { MatMambaError, messageOf } from '../errors.ts';
import { IdBuffer } from './byte-level.ts';
import { type Encoder, type TokenizerSource, openEncoder } from './encoder.ts';
import { type ParquetText, openParquet } from './parquet.ts';
import { cutPieces } from './pieces.ts';
import type { Split, Work } from './tasks.ts';
import { countWords } from './train-bpe.ts';

export interface RunnerOptions {
  /** Absent when words are counted. */
  readonly tokenizer?: TokenizerSource;
  readonly endTokenId: number;
  readonly endTokenFirst: boolean;
  readonly pieceParagraphs: number;
  /** The column of Parquet files and the field of JSON lines. */
  readonly column: string;
  readonly field: string;
  readonly skipBad: boolean;
}

/** Something that was left out, and why. */
export interface Skipped {
  readonly where: string;
  readonly reason: string;
}

export interface TaskResult {
  /** Ids, end tokens among them; empty when words are counted. */
  readonly ids: Uint16Array;
  /** Documents that begin in this task and have a text. */
  readonly documents: number;
  readonly emptyDocuments: number;
  /** UTF-8 bytes of the texts. */
  readonly textBytes: number;
  readonly skipped: readonly Skipped[];
}

/** A text, and whether its document begins and ends here. */
interface Part {
  readonly text: string;
  readonly first: boolean;
  readonly last: boolean;
}

export class TaskRunner {
  readonly #options: RunnerOptions;
  readonly #out = new IdBuffer();
  #encoder: Promise<Encoder> | undefined;
  #parquet: { readonly path: string; readonly file: ParquetText } | undefined;
  #counts = new Map<string, number>();

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  /** What encodes, for reports. */
  async engine(): Promise<string> {
    return this.#options.tokenizer ? (await this.#open(this.#options.tokenizer)).engine : 'word count';
  }

  #open(tokenizer: TokenizerSource): Promise<Encoder> {
    this.#encoder ??= openEncoder(tokenizer);
    return this.#encoder;
  }

  /** @throws FORMAT, FILE, TOKEN; with `skipBad` what cannot be read is left out and listed */
  async run(work: Work): Promise<TaskResult> {
    const { tokenizer, endTokenFirst, endTokenId, pieceParagraphs } = this.#options;
    const skipped: Skipped[] = [];
    const found = await this.#parts(work, skipped);
    const out = this.#out;
    const parts = found.filter(({ text, first, last }) => text !== '' || !first || !last);
    let textBytes = 0;
    for (const { text } of parts) textBytes += Buffer.byteLength(text);
    if (!tokenizer) for (const { text } of parts) countWords(text, this.#counts);
    else {
      const encoder = await this.#open(tokenizer);
      for (const { text, first, last } of parts) {
        if (first && endTokenFirst) out.push(endTokenId);
        await encoder.encode(cutPieces(text, pieceParagraphs), out);
        if (last && !endTokenFirst) out.push(endTokenId);
      }
    }
    const documents = parts.filter(({ first }) => first).length;
    return { ids: out.take(), documents, emptyDocuments: found.length - parts.length, textBytes, skipped };
  }

  /** The counts of words so far, and none left. */
  takeCounts(): Map<string, number> {
    const counts = this.#counts;
    this.#counts = new Map();
    return counts;
  }

  async close(): Promise<void> {
    await this.#parquet?.file.close();
    this.#parquet = undefined;
  }

  async #parts(work: Work, skipped: Skipped[]): Promise<Part[]> {
    if (work.kind === 'jsonl') return this.#jsonLines(work, skipped);
    if (work.kind === 'text') return textParts(work.bytes, work.split, !work.continued, work.last);
    const { name, path, group } = work;
    try {
      const rows = await (await this.#openParquet(path, name)).read(this.#options.column, group);
      return rows.map((text) => ({ text: text ?? '', first: true, last: true }));
    } catch (error) {
      if (!this.#options.skipBad || !(error instanceof MatMambaError) || error.code !== 'FORMAT') throw error;
      skipped.push({ where: `${name}, row group ${group}`, reason: error.message.split('\n')[0]! });
      return [];
    }
  }

  /** Row groups of one file come one after the other: its end is read once. */
  async #openParquet(path: string, name: string): Promise<ParquetText> {
    if (this.#parquet?.path !== path) {
      await this.close();
      this.#parquet = { path, file: await openParquet(path, name) };
    }
    return this.#parquet.file;
  }

  #jsonLines({ bytes, firstLine, name }: Extract<Work, { kind: 'jsonl' }>, skipped: Skipped[]): Part[] {
    const parts: Part[] = [];
    for (const [i, line] of decode(bytes, firstLine === 1)
      .split('\n')
      .entries()) {
      if (line.trim() === '') continue;
      const where = `${name}, line ${firstLine + i}`;
      const read = textOfLine(line, this.#options.field);
      if (typeof read === 'string') parts.push({ text: read, first: true, last: true });
      else if (this.#options.skipBad) skipped.push({ where, reason: read.reason });
      else
        throw new MatMambaError('FORMAT', `${where}: ${read.reason}`, {
          hint: read.hint ?? 'mend the line, or go on without such lines: --skip-bad',
        });
    }
    return parts;
  }
}

/** UTF-8; damaged bytes become U+FFFD, a byte order mark at the beginning of a file is left out. */
function decode(bytes: Uint8Array, fileStart: boolean): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  return fileStart && text.startsWith('\uFEFF') ? text.slice(1) : text;
}

function textOfLine(line: string, field: string): string | { readonly reason: string; readonly hint?: string } {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    return { reason: `not valid JSON: ${messageOf(error)}` };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return { reason: 'not a JSON object' };
  const text: unknown = Object.hasOwn(value, field) ? (value as Record<string, unknown>)[field] : undefined;
  if (typeof text === 'string') return text;
  if (text !== undefined) return { reason: `the field '${field}' holds no text` };
  return {
    reason: `there is no field '${field}'`,
    hint: `it has ${Object.keys(value).slice(0, 10).join(', ')}: choose with --field`,
  };
}

function textParts(bytes: Uint8Array, split: Split, start: boolean, last: boolean): Part[] {
  const text = decode(bytes, start);
  if (split === 'file') return [{ text, first: start, last }];
  const documents = split === 'line' ? text.split('\n') : text.split(/\n(?:[ \t]*\r?\n)+/);
  return documents
    .map((document) => document.replace(/^[\r\n]+|[\r\n]+$/g, ''))
    .filter((document) => document.trim() !== '')
    .map((document) => ({ text: document, first: true, last: true }));
}
