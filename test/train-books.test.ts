/** The script that makes the embedded model, on a text of its own size: from books to a model that writes. */

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'matmamba-books-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const WORDS = 'the old man looked at the sea and said that a dark night with wind and rain had come upon the ship'.split(' ');

/** Books of paragraphs of these words, one word in three left out. */
function books(count: number, from: number): string {
  const paragraph = (seed: number): string => WORDS.filter((_, i) => (i * 7 + seed * 5) % 3 > 0).join(' ');
  const text = (book: number): string => Array.from({ length: 40 }, (_, i) => paragraph(book * 40 + i)).join('\n\n');
  return Array.from({ length: count }, (_, i) => `${JSON.stringify({ title: `Book ${from + i}`, text: text(from + i) })}\n`).join(
    '',
  );
}

async function script(...options: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('node', ['scripts/train-books.mjs', ...options], { timeout: 100_000 });
  return stdout;
}

test('trains, packs, measures every width and writes; the second time nothing is done again', async () => {
  const [text, heldOut, out] = ['train.jsonl', 'held-out.jsonl', 'out'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  await writeFile(text, books(3, 0));
  await writeFile(heldOut, books(1, 3));
  const shape = ['--d-model', '64', '--layers', '3', '--length', '64', '--batch', '2', '--steps', '3'];
  const given = ['--text', text, '--held-out', heldOut, '--out', out, '--vocabulary', '300', '--device', 'cpu'];
  await script(...given, '--no-measure', '--', ...shape);
  const log = await readFile(join(out, 'run', 'log.jsonl'), 'utf8');
  const printed = await script(...given, '--windows', '1', '--', ...shape);
  expect(await readFile(join(out, 'run', 'log.jsonl'), 'utf8')).toBe(log);

  const measured = (await readFile(join(out, 'eval.jsonl'), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { granularity: number[]; loss: number; lossPerByte: number; level?: number });
  expect(measured.flatMap(({ level }) => level ?? [])).toEqual([1, 2, 4, 8]);
  expect(new Set(measured.map(({ granularity }) => granularity.join())).size).toBe(14);
  for (const { loss, lossPerByte } of measured) {
    expect(loss).toBeLessThan(Math.log(300) + 0.5);
    expect(lossPerByte).toBeLessThan(loss);
  }
  const samples = await readFile(join(out, 'samples.txt'), 'utf8');
  expect(samples.match(/^level \d\nThe old man looked at the sea and said/gm)).toHaveLength(4);
  expect(printed).toContain(samples);
});

test('says what is missing', async () => {
  await expect(script('--text', 'books.jsonl')).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('--held-out') });
});
