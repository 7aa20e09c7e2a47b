/** Checkpoints on disk: whole or not there, whatever happens while they are written. */

import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { RunStore } from './run-store.ts';

let folder = '';
let store: RunStore;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'matmamba-store-'));
  store = new RunStore(folder);
  await store.prepare();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const write =
  (content: string) =>
  (path: string): Promise<void> =>
    writeFile(join(path, 'model'), content);

const names = (): string[] => readdirSync(join(folder, 'checkpoints')).sort();

const bestContent = (): string => readFileSync(join(store.best, 'model'), 'utf8');

/** Writes one file, then the disk is full. */
async function fullDisk(path: string): Promise<void> {
  await writeFile(join(path, 'model'), 'half');
  throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
}

test('the last two are kept and the latest is found', async () => {
  expect(await store.latest()).toBeUndefined();
  for (const step of [9, 10, 100]) await store.save(step, write(String(step)));
  expect(names()).toEqual(['step-00000010', 'step-00000100']);
  expect(await store.latest()).toEqual({ step: 100, folder: join(folder, 'checkpoints/step-00000100') });
});

test('a step beyond eight digits comes after the others', async () => {
  await store.save(99_999_999, write('a'));
  await store.save(100_000_000, write('b'));
  expect((await store.latest())?.step).toBe(100_000_000);
});

test('a step that is saved again is replaced', async () => {
  await store.save(5, write('old'));
  await store.save(5, write('new'));
  expect(readFileSync(join((await store.latest())!.folder, 'model'), 'utf8')).toBe('new');
});

test('a full disk leaves what was there, and no draft', async () => {
  await store.save(1, write('one'));
  await store.saveBest(write('one'));
  await expect(store.save(2, fullDisk)).rejects.toMatchObject({ code: 'ENOSPC' });
  await expect(store.saveBest(fullDisk)).rejects.toMatchObject({ code: 'ENOSPC' });
  expect(names()).toEqual(['step-00000001']);
  expect(readdirSync(folder).sort()).toEqual(['best', 'checkpoints']);
  expect(bestContent()).toBe('one');
});

test('drafts of a killed process are no checkpoints and go at the next start', async () => {
  await store.save(1, write('one'));
  mkdirSync(join(folder, 'checkpoints/.step-00000002'));
  mkdirSync(join(folder, '.best-draft'));
  mkdirSync(join(folder, 'checkpoints/step-of-mine'));
  expect((await store.latest())?.step).toBe(1);
  await store.prepare();
  expect(names()).toEqual(['step-00000001', 'step-of-mine']);
  expect(existsSync(join(folder, '.best-draft'))).toBe(false);
});

test('a best model that was complete but not yet in place is put there', async () => {
  await store.saveBest(write('old'));
  mkdirSync(join(folder, '.best-new'));
  writeFileSync(join(folder, '.best-new/model'), 'new');
  await store.prepare();
  expect(bestContent()).toBe('new');
  // The same when the old one was gone already.
  mkdirSync(join(folder, '.best-new'));
  writeFileSync(join(folder, '.best-new/model'), 'newer');
  rmSync(store.best, { recursive: true });
  await store.prepare();
  expect(bestContent()).toBe('newer');
});

test('a folder that cannot be made is a FILE error', async () => {
  const file = join(folder, 'file');
  writeFileSync(file, '');
  await expect(new RunStore(file).prepare()).rejects.toMatchObject({ code: 'FILE' });
});
