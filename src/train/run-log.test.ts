/** Records of a run: what a resume takes back, and the curves at the end. */

import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FolderLog } from './run-log.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'matmamba-log-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function record(log: FolderLog, from: number, to: number): Promise<void> {
  for (let step = from; step <= to; step++) {
    await log.step({
      step,
      losses: { 'level 1': 5 / step, 'level 8': 6 / step },
      learningRate: 1e-3,
      gradientNorm: 1,
      seconds: 0.5,
    });
  }
}

const lines = (): { step: number }[] =>
  readFileSync(join(folder, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { step: number });

test('a resume forgets what came after its checkpoint', async () => {
  const killed = new FolderLog(folder);
  await killed.start(0);
  await record(killed, 1, 7);
  await killed.validation(4, { 'level 1': 2, 'level 8': 3 });
  await killed.flush();
  const resumed = new FolderLog(folder);
  await resumed.start(4);
  await record(resumed, 5, 9);
  await resumed.close();
  // The validation was recorded after step 7 but belongs to step 4.
  expect(lines().map(({ step }) => step)).toEqual([1, 2, 3, 4, 4, 5, 6, 7, 8, 9]);
});

test('curves show every level, trained and held out', async () => {
  const log = new FolderLog(folder);
  await log.start(0);
  await record(log, 1, 5);
  await log.validation(5, { 'level 1': 2, 'level 8': 3 });
  await log.close();
  const svg = readFileSync(join(folder, 'curves.svg'), 'utf8');
  expect(svg).toContain('level 1');
  expect(svg).toContain('level 8');
  expect(readdirSync(folder).filter((name) => name.startsWith('events.out.tfevents.'))).toHaveLength(1);
});

test('a run without steps has curves too', async () => {
  const log = new FolderLog(folder);
  await log.start(0);
  await log.close();
  expect(readFileSync(join(folder, 'curves.svg'), 'utf8')).toContain('<svg');
});
