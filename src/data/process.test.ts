/** The command as a process with threads: killed at any moment, resumed, and on the books. */

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from '../../test/support/built.ts';
import { withFolder } from '../checkpoint/testing.ts';
import { folderBytes, gzip, jsonLines, parquetFile, sampleDocuments, sampleTokenizer, writeFiles } from './testing.ts';

let command = '';
beforeAll(() => {
  command = join(dirname(fileURLToPath(buildPackage('matmamba-data-test'))), 'cli/main.js');
});

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(args: readonly string[], killAfterMs = 60_000): Promise<Outcome> {
  const child = spawn(process.execPath, [command, 'data', 'text', ...args], { env: { ...process.env, NODE_OPTIONS: '' } });
  const timer = setTimeout(() => child.kill('SIGKILL'), killAfterMs);
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text));
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  clearTimeout(timer);
  return { code, ...output };
}

describe('matmamba data text', () => {
  test('killed at any moment, it ends with the bytes of an unbroken run', async () => {
    await withFolder(async (folder) => {
      const lines = jsonLines(sampleDocuments(6000, 1));
      await writeFiles(folder, {
        'tokenizer.json': sampleTokenizer(),
        'in/a.jsonl.gz': gzip(lines),
        'in/b.parquet': await parquetFile(sampleDocuments(2000, 2), { rowGroupSize: 100 }),
      });
      const args = (out: string): string[] => [
        join(folder, 'in'),
        `--out=${join(folder, out)}`,
        `--tokenizer=${join(folder, 'tokenizer.json')}`,
        '--shard-tokens=20k',
        '--validation-tokens=10k',
        '--workers=2',
        '--json',
      ];
      const start = performance.now();
      const { code, stdout, stderr } = await run(args('whole'));
      expect([code, stderr]).toEqual([0, '']);
      const said = JSON.parse(stdout) as {
        documents: number;
        workers: number;
        engine: string;
        thisRun: { textBytesPerSecond: number };
      };
      expect(said).toMatchObject({ documents: 8000, workers: 2, engine: 'byte-level' });
      expect(said.thisRun.textBytesPerSecond).toBeGreaterThan(0);
      const tookMs = performance.now() - start;
      let kills = 0;
      for (let attempt = 0; attempt < 5; attempt++) {
        const broken = await run(args('broken'), tookMs * (0.35 + 0.6 * Math.random()));
        if (broken.code === 0) break;
        kills++;
      }
      const { code: last, stderr: complaint } = await run(args('broken'));
      expect([last, complaint], `after ${kills} kills`).toEqual([0, '']);
      expect(await folderBytes(join(folder, 'broken'))).toEqual(await folderBytes(join(folder, 'whole')));
    });
  });

  test('errors in threads arrive with their code and hint, once', async () => {
    await withFolder(async (folder) => {
      await writeFiles(folder, { 'in.jsonl': `${jsonLines(sampleDocuments(10))}{"body": 1}\n` });
      const { code, stderr } = await run([join(folder, 'in.jsonl'), '--out', join(folder, 'out'), '--workers', '1']);
      expect(code).toBe(1);
      expect(stderr).toMatch(
        /^error FORMAT: .*in\.jsonl, line 11: there is no field 'text'\n {2}it has body: choose with --field\n$/,
      );
    });
  });

  test('a command line that cannot be meant is refused', async () => {
    const usage = async (...args: string[]): Promise<string> => {
      const { code, stderr } = await run(args);
      expect(code).toBe(2);
      return stderr;
    };
    expect(await usage('x.jsonl')).toContain('--out');
    expect(await usage('x.jsonl', '--out', 'o', '--shard-tokens', 'many')).toContain('for example 100M');
    expect(await usage('x.jsonl', '--out', 'o', '--rank', '2', '--ranks', '2')).toContain('2 ranks');
  });
});

const shared = fileURLToPath(new URL('../../../shared/', import.meta.url));
const books = join(shared, 'data/books/val.jsonl.xz');
const model = join(shared, 'checkpoints/books-10m');

test.skipIf(!existsSync(books))(
  'the held-out books are those of books-10m, token by token (skipped where they are not)',
  async () => {
    await withFolder(async (folder) => {
      const { code, stderr } = await run([
        books,
        '--out',
        folder,
        '--tokenizer',
        model,
        '--end-token',
        'last',
        '--validation-tokens',
        '1048576',
      ]);
      expect([code, stderr]).toEqual([0, '']);
      const [ours, theirs] = await Promise.all([readFile(join(folder, 'val_000000.bin')), readFile(join(model, 'val.bin'))]);
      expect(Buffer.compare(ours, theirs)).toBe(0);
    });
  },
);
