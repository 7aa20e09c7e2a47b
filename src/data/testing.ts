/** What the tests of this folder share: texts, a small tokenizer, files of every kind, and reading back what was made. */

import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { Random } from '../tensor/random.ts';
import { countWords, trainBytePairs } from './train-bpe.ts';

const WORDS =
  "the a sea man old ship said I'll don't we've it's 1923 42 — café naïve 東京 の 😀 🤷🏽 Ünïcödé end. stop, (so) ... ~~ x=y; tab\there".split(
    ' ',
  );

/** Documents of random words: paragraphs, odd white space, several scripts. */
export function sampleDocuments(count: number, seed = 0): string[] {
  const random = new Random(seed, 'documents');
  const pick = (n: number): number => Math.floor(random.uniform() * n);
  const gaps = [' ', ' ', ' ', ' ', '  ', '\n', '\n\n', '\n\n\n', ' \n\n', '\u00a0', '\u3000\n\n', '\r\n'];
  return Array.from({ length: count }, () => {
    let text = '';
    for (let left = 5 + pick(120); left > 0; left--) text += WORDS[pick(WORDS.length)]! + gaps[pick(gaps.length)]!;
    return text.trim();
  });
}

export const jsonLines = (documents: readonly string[], field = 'text'): string =>
  documents.map((text, i) => `${JSON.stringify({ id: i, [field]: text })}\n`).join('');

let trained: string | undefined;

/** The `tokenizer.json` of a byte-level BPE with 320 ids, trained on sample documents. */
export function sampleTokenizer(): string {
  if (trained === undefined) {
    const counts = new Map<string, number>();
    for (const text of sampleDocuments(40)) countWords(text, counts);
    trained = trainBytePairs(counts, 320);
  }
  return trained;
}

/** A Zstandard frame that stores its bytes as they are. */
export function storeZstd(bytes: Uint8Array): Uint8Array {
  const size = Buffer.alloc(4);
  size.writeUInt32LE(bytes.length);
  const parts = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xa0]), size];
  const step = 2 ** 16;
  for (let at = 0; at === 0 || at < bytes.length; at += step) {
    const part = bytes.subarray(at, at + step);
    const header = Buffer.alloc(3);
    header.writeUIntLE((part.length << 3) | (at + step >= bytes.length ? 1 : 0), 0, 3);
    parts.push(header, Buffer.from(part));
  }
  return Buffer.concat(parts);
}

/** A Parquet file with a column of texts and one of numbers. */
export async function parquetFile(
  texts: readonly (string | null)[],
  {
    codec = 'SNAPPY',
    rowGroupSize = 7,
    column = 'text',
  }: { codec?: 'SNAPPY' | 'ZSTD'; rowGroupSize?: number; column?: string } = {},
): Promise<Uint8Array> {
  const { parquetWriteBuffer } = await import('hyparquet-writer');
  const columnData = [
    { name: 'id', data: texts.map((_, i) => i), type: 'INT32' as const },
    { name: column, data: [...texts], type: 'STRING' as const, nullable: true },
  ];
  return new Uint8Array(parquetWriteBuffer({ columnData, codec, rowGroupSize, compressors: { ZSTD: storeZstd } }));
}

/** Writes files below a folder. */
export async function writeFiles(folder: string, files: Readonly<Record<string, string | Uint8Array>>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  }
}

export const gzip = (text: string): Uint8Array => gzipSync(text);

/** Every file of a folder with its bytes, to compare whole folders. */
export async function folderBytes(folder: string): Promise<Record<string, string>> {
  const names = (await readdir(folder)).sort();
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, (await readFile(join(folder, name))).toString('base64')] as const)),
  );
}

/** The tokens of all shards of a folder in order, validation first. */
export async function tokensOf(folder: string): Promise<number[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.bin'));
  names.sort((a, b) => (a.startsWith('val') ? -1 : b.startsWith('val') ? 1 : a < b ? -1 : 1));
  const tokens: number[] = [];
  for (const name of names) {
    const bytes = await readFile(join(folder, name));
    for (let at = 1024; at < bytes.length; at += 2) tokens.push(bytes.readUInt16LE(at));
  }
  return tokens;
}
