import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { TokenLoader, type TokenLoaderOptions } from './loader.ts';
import { Permutation } from './permutation.ts';
import { tokenFileHeader } from './shard-writer.ts';
import { TokenSet } from './token-set.ts';

const folder = mkdtempSync(join(tmpdir(), 'matmamba-loader-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Shards whose token i of all is i, so that a window tells where it began. */
function shards(name: string, sizes: readonly number[]): string[] {
  let next = 0;
  return sizes.map((size, i) => {
    const ids = Uint16Array.from({ length: size }, () => next++);
    const path = join(folder, `${name}_${i}.bin`);
    writeFileSync(path, Buffer.concat([tokenFileHeader(size), new Uint8Array(ids.buffer)]));
    return path;
  });
}

const paths = shards('train', [301, 0, 17, 400, 283]); // 1,001 tokens
const T = 10;
const open = (options: Partial<TokenLoaderOptions> = {}, from: string | string[] = paths): Promise<TokenLoader> =>
  TokenLoader.open(from, { batchSize: 4, length: T, vocabSize: 2000, ...options });

describe('the permutation', () => {
  test.each([1, 2, 3, 16, 17, 1000, 4097])('of %i is one', (length) => {
    const permutation = new Permutation(length, 5);
    expect(new Set(Array.from({ length }, (_, i) => permutation.at(i)))).toEqual(new Set(Array.from({ length }, (_, i) => i)));
  });

  test('depends on seed and number, and mixes', () => {
    const order = (seed: number, index: number): number[] => {
      const permutation = new Permutation(500, seed, index);
      return Array.from({ length: 500 }, (_, i) => permutation.at(i));
    };
    expect(order(1, 0)).toEqual(order(1, 0));
    expect(order(1, 0)).not.toEqual(order(2, 0));
    expect(order(1, 0)).not.toEqual(order(1, 1));
    const inPlace = order(1, 0).filter((to, from) => Math.abs(to - from) < 5).length;
    expect(inPlace).toBeLessThan(50);
  });
});

describe('batches', () => {
  test('are windows of the joined files with what comes next', async () => {
    await using loader = await open();
    expect([loader.tokens, loader.windows]).toEqual([1001, 100]);
    const starts = loader.starts({ step: 3, level: 1, microBatch: 2 });
    const { ids, targets } = await loader.batch({ step: 3, level: 1, microBatch: 2 });
    expect([ids.length, targets.length]).toEqual([40, 40]);
    for (const [row, start] of starts.entries()) {
      expect([...ids.subarray(row * T, row * T + T)]).toEqual(Array.from({ length: T }, (_, i) => start + i));
      expect([...targets.subarray(row * T, row * T + T)]).toEqual(Array.from({ length: T }, (_, i) => start + i + 1));
    }
  });

  test('drawn uniformly depend on their place and the seed alone, and reach every beginning', async () => {
    await using loader = await open({ seed: 7 });
    await using again = await open({ seed: 7 });
    await using other = await open({ seed: 8 });
    const late = await again.batch({ step: 1000, level: 2 });
    loader.prefetch({ step: 1000, level: 2 });
    for (let step = 0; step < 20; step++) await loader.batch({ step });
    expect(await loader.batch({ step: 1000, level: 2 })).toEqual(late);
    expect(other.starts({ step: 0 })).not.toEqual(loader.starts({ step: 0 }));
    expect(loader.starts({ step: 0, level: 1 })).not.toEqual(loader.starts({ step: 0, level: 0 }));
    const seen = new Set(Array.from({ length: 4000 }, (_, step) => loader.starts({ step })).flat());
    expect(Math.min(...seen)).toBe(0);
    expect(Math.max(...seen)).toBe(1001 - T - 1);
    expect(seen.size).toBe(1001 - T);
  });

  test.each(['uniform', 'permuted'] as const)(
    '%s: the data of a step does not depend on ranks or the batch size',
    async (sampling) => {
      const sets = await Promise.all(
        [1, 2, 4].map(async (batchSize) => {
          await using loader = await open({ batchSize, sampling, levels: 2, microBatches: 8 / batchSize, seed: 3 });
          const micro = Array.from({ length: 8 / batchSize }, (_, microBatch) =>
            loader.starts({ step: 5, level: 1, microBatch }),
          );
          return micro.flat();
        }),
      );
      expect(sets[1]).toEqual(sets[0]);
      expect(sets[2]).toEqual(sets[0]);
    },
  );

  test('permuted: every window once in an epoch, levels and ranks apart, a new order in the next epoch', async () => {
    const levels = 5;
    const microBatches = 2; // 5 * 2 * 2 = 20 windows a step, 5 steps an epoch
    await using loader = await open({ sampling: 'permuted', batchSize: 2, levels, microBatches, seed: 11 });
    const epoch = (number: number): number[] =>
      Array.from({ length: 5 * levels * microBatches }, (_, i) => {
        const step = 5 * number + Math.floor(i / (levels * microBatches));
        return loader.starts({ step, level: Math.floor(i / microBatches) % levels, microBatch: i % microBatches });
      }).flat();
    const all = Array.from({ length: 100 }, (_, i) => T * i);
    for (const number of [0, 1, 40]) expect([...epoch(number)].sort((a, b) => a - b)).toEqual(all);
    expect(epoch(0)).not.toEqual(epoch(1));
    expect(() => loader.starts({ step: 0, level: 5 })).toThrow(/5 levels of 2/);
    expect(() => loader.starts({ step: -1 })).toThrow(/no batch/);
  });
});

describe('bad token files', () => {
  const bad = (name: string, bytes: Uint8Array): string => {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    return path;
  };

  test('are named', async () => {
    const good = Buffer.concat([tokenFileHeader(20), Buffer.alloc(40)]);
    const magic = Buffer.from(good);
    magic.writeInt32LE(1, 0);
    await expect(open({}, bad('magic.bin', magic))).rejects.toMatchObject({
      code: 'FORMAT',
      message: expect.stringContaining('magic.bin') as string,
    });
    const count = Buffer.from(good);
    count.writeInt32LE(21, 8);
    await expect(open({}, bad('count.bin', count))).rejects.toMatchObject({
      code: 'FORMAT',
      message: expect.stringContaining('21 tokens') as string,
    });
    await expect(open({}, bad('short.bin', Buffer.concat([tokenFileHeader(10), Buffer.alloc(20)])))).rejects.toMatchObject({
      code: 'FORMAT',
      message: expect.stringContaining('10 tokens hold no window of 10') as string,
    });
    await expect(open({}, join(folder, 'none'))).rejects.toMatchObject({ code: 'FILE' });
    await expect(open({ length: 0 })).rejects.toMatchObject({ code: 'OPTION' });
    await expect(open({ sampling: 'random' as 'uniform' })).rejects.toMatchObject({ code: 'OPTION' });
  });

  test('an id outside the vocabulary is named with file and position', async () => {
    await using loader = await open({ vocabSize: 400, sampling: 'permuted' });
    const all = Promise.all(Array.from({ length: 25 }, (_, step) => loader.batch({ step })));
    await expect(all).rejects.toMatchObject({
      code: 'TOKEN',
      message: expect.stringMatching(/train_3\.bin: token \d+ at position \d+/) as string,
    });
  });
});

test('of many files a few are open at a time, and all can be read at once', async () => {
  const many = shards(
    'many',
    Array.from({ length: 150 }, () => 8),
  );
  await using set = await TokenSet.open(many);
  expect(set.length).toBe(1200);
  const windows = await Promise.all(Array.from({ length: 200 }, (_, i) => set.read(5 * i, 21, 2000)));
  for (const [i, window] of windows.entries()) expect([...window]).toEqual(Array.from({ length: 21 }, (_, k) => 5 * i + k));
});
