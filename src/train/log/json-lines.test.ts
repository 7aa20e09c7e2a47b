import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { JsonLinesLog, readJsonLines } from './json-lines.ts';

let path = '';
beforeEach(async () => {
  path = join(await mkdtemp(join(tmpdir(), 'matmamba-log-')), 'log.jsonl');
});
afterEach(() => rm(join(path, '..'), { recursive: true, force: true }));

async function run(from: number, to: number, resumeAfter?: number): Promise<void> {
  const log = await JsonLinesLog.open(path, resumeAfter === undefined ? {} : { resumeAfter });
  for (let step = from; step <= to; step++) {
    await log.append({ step, loss: { 'level 1': 10 / step } });
    if (step % 4 === 0) await log.append({ step, validation: { 'level 1': 11 / step } });
  }
  await log.flush();
  await log.close();
}

describe('JsonLinesLog', () => {
  it('appends, and reads back what it wrote', async () => {
    await run(1, 4);
    await run(5, 5);
    expect((await readJsonLines(path)).map(({ step }) => step)).toEqual([1, 2, 3, 4, 4, 5]);
    expect(await readJsonLines(join(path, '..', 'none.jsonl'))).toEqual([]);
  });

  it.each([0, 3, 4, 9, 10, 99])('resumed after step %i becomes the log of an unbroken run', async (resumeAfter) => {
    await run(1, 12);
    const unbroken = await readFile(path, 'utf8');
    await rm(path);
    await run(1, 10);
    await run(Math.min(resumeAfter, 10) + 1, 12, resumeAfter);
    expect(await readFile(path, 'utf8')).toBe(unbroken);
  });

  it('drops a line that a killed process left unfinished', async () => {
    await run(1, 2);
    const whole = await readFile(path, 'utf8');
    for (const torn of ['{', '{"step":3,"loss":{"lev', '{"step":3}']) {
      await writeFile(path, whole + torn);
      expect(await readJsonLines(path)).toHaveLength(2);
      await (await JsonLinesLog.open(path)).close();
      expect(await readFile(path, 'utf8')).toBe(whole);
    }
  });

  it('refuses a file that is no log, and leaves it as it is', async () => {
    await writeFile(path, '{"step":1}\nhello\n{"step":2}\n');
    await expect(JsonLinesLog.open(path, { resumeAfter: 1 })).rejects.toThrow(/line 2 is no log entry/);
    expect(await readFile(path, 'utf8')).toContain('hello');
    await expect(JsonLinesLog.open(join(path, 'inside'))).rejects.toMatchObject({ code: 'FILE' });
  });

  it('refuses lines after close', async () => {
    const log = await JsonLinesLog.open(path);
    await log.close();
    await log.close();
    await expect(log.append({ step: 1 })).rejects.toMatchObject({ code: 'DISPOSED' });
  });
});
