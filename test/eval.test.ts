/** `matmamba eval` on held-out books: the embedded model's losses are those of the original implementation. */

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

/** What the original measured (float32, 32 windows of 1,024 tokens), by level. */
const ORIGINAL = { 1: 3.323666, 2: 3.367995, 4: 3.465153, 8: 3.590619 };
const F32_TOLERANCE = 2e-4;
const INT8_TOLERANCE = 0.02;

test.each([
  ['f32', F32_TOLERANCE, [1, 2, 4, 8]],
  ['int8', INT8_TOLERANCE, [4, 8]],
] as const)(
  'held-out losses in %s',
  async (dtype, tolerance, levels) => {
    const args = ['dist/cli/main.js', 'eval', 'test/fixtures/books-held-out.bin', '--model', 'models/books-10m'];
    const { stdout } = await promisify(execFile)('node', [...args, '--level', levels.join(), '--dtype', dtype, '--json'], {
      timeout: 120_000,
    });
    const results = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { level: keyof typeof ORIGINAL; granularity: number[]; loss: number });
    expect(results.map(({ level }) => level)).toEqual(levels);
    for (const { level, granularity, loss } of results) {
      expect(granularity).toEqual(Array.from({ length: 8 }, () => 384 / level));
      expect(Math.abs(loss - ORIGINAL[level]), `level ${level}: ${loss}`).toBeLessThan(tolerance);
    }
  },
  150_000,
);
