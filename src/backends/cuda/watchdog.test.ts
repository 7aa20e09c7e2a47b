/** The limit on calls that block: a process that is late ends in words, one that is not goes on. */

import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { compileSources } from '../../distributed/testing.ts';
import { withinTime } from './watchdog.ts';

test('what is done in time gives its result or its error', () => {
  expect(withinTime(60_000, 'late', () => 5)).toBe(5);
  expect(() =>
    withinTime(60_000, 'late', () => {
      throw new Error('no');
    }),
  ).toThrow('no');
});

test('a process that is late ends with its last words', async () => {
  const folder = compileSources(['src/backends/cuda/watchdog.ts']);
  const script = `
    import { withinTime } from ${JSON.stringify(pathToFileURL(join(folder, 'backends/cuda/watchdog.js')).href)};
    withinTime(60_000, 'never said', () => {});
    withinTime(300, 'rank 1: too late', () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0));`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script]);
  let words = '';
  child.stderr.on('data', (bytes: Buffer) => (words += bytes.toString()));
  const signal = await new Promise((resolve) => child.on('close', (_, name) => resolve(name)));
  rmSync(folder, { recursive: true });
  expect({ words, signal }).toEqual({ words: 'matmamba: rank 1: too late\n', signal: 'SIGKILL' });
});
