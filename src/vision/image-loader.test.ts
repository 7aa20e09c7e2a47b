import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Random } from '../tensor/random.ts';
import { moveAndMirror, randomPart } from './augment.ts';
import { listImageFolder } from './image-folder.ts';
import { ImageReader, TrainingImages } from './image-loader.ts';
import { imageTransform } from './preprocess.ts';

const root = mkdtempSync(join(tmpdir(), 'matmamba-folder-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const small = join(root, 'small');
const CLASSES = ['Zebra', 'ant', 'bee'];

async function picture(path: string, background: string, width = 8, height = 8): Promise<void> {
  await sharp({ create: { width, height, channels: 3, background } })
    .png()
    .toFile(path);
}

beforeAll(async () => {
  for (const [i, name] of CLASSES.entries()) {
    mkdirSync(join(small, name, 'more'), { recursive: true });
    await picture(join(small, name, 'b.png'), ['#f00', '#0f0', '#00f'][i]!);
    await picture(join(small, name, 'more', 'a.PNG'), ['#800', '#080', '#008'][i]!);
    writeFileSync(join(small, name, 'notes.txt'), 'no picture');
  }
  mkdirSync(join(small, '.hidden'));
  writeFileSync(join(small, 'readme.txt'), 'no class');
});

describe('class folders', () => {
  test('are numbered by name, their pictures listed in order', async () => {
    const { classes, paths, labels, hash } = await listImageFolder(small);
    expect(classes).toEqual(CLASSES);
    expect(paths.map((path) => path.slice(small.length + 1))).toEqual(
      CLASSES.flatMap((name) => [`${name}/b.png`, `${name}/more/a.PNG`]),
    );
    expect([...labels]).toEqual([0, 0, 1, 1, 2, 2]);
    expect((await listImageFolder(small, ['ant', 'Zebra', 'bee', 'cow'])).labels).toEqual(Int32Array.of(1, 1, 0, 0, 2, 2));
    await picture(join(small, 'ant', 'c.png'), '#0f0');
    expect((await listImageFolder(small)).hash).not.toBe(hash);
    rmSync(join(small, 'ant', 'c.png'));
  });

  test('that are missing, empty, unknown or parts of a data set are refused', async () => {
    const make = (...names: string[]): string => {
      const folder = mkdtempSync(join(root, 'case-'));
      for (const name of names) mkdirSync(join(folder, name), { recursive: true });
      return folder;
    };
    const refuses = (folder: string, code: string, message: RegExp, classes?: string[]): Promise<void> =>
      expect(listImageFolder(folder, classes)).rejects.toMatchObject({ code, message: expect.stringMatching(message) as string });
    await refuses(join(root, 'none'), 'FILE', /there is no folder/);
    await refuses(join(small, 'readme.txt'), 'FILE', /is no folder/);
    await refuses(join(small, 'ant', 'more'), 'FORMAT', /no class folders, only 1 pictures/);
    await refuses(make(), 'FORMAT', /no class folders/);
    await refuses(make('cat'), 'FORMAT', /only one class folder, cat/);
    await refuses(make('cat', 'dog'), 'FORMAT', /cat holds no pictures/);
    await refuses(make('train', 'val'), 'FORMAT', /parts of a data set/);
    await refuses(small, 'FORMAT', /bee is none of the 2 classes/, ['Zebra', 'ant']);
  });
});

describe('augmentation', () => {
  test('a random part lies inside and keeps shape and area within bounds', () => {
    for (const [width, height] of [
      [500, 375],
      [60, 200],
      [1, 1],
      [1000, 10],
    ] as const) {
      for (let seed = 0; seed < 200; seed++) {
        const part = randomPart(width, height, new Random(seed, 'part'));
        expect(part.left >= 0 && part.top >= 0 && part.width >= 1 && part.height >= 1).toBe(true);
        expect(part.left + part.width <= width && part.top + part.height <= height).toBe(true);
        if (width === 500) {
          expect(part.width * part.height).toBeGreaterThan(0.07 * width * height);
          expect(Math.abs(Math.log(part.width / part.height))).toBeLessThan(0.31);
        }
      }
    }
  });

  test('moves with a black border, and mirrors', () => {
    const pixels = Uint8Array.from({ length: 12 }, (_, i) => i + 1);
    expect([...moveAndMirror(pixels, 2, 0, 0, false)]).toEqual([...pixels]);
    expect([...moveAndMirror(pixels, 2, 0, 0, true)]).toEqual([4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9]);
    expect([...moveAndMirror(pixels, 2, 1, 0, false)]).toEqual([0, 0, 0, 1, 2, 3, 0, 0, 0, 7, 8, 9]);
    expect([...moveAndMirror(pixels, 2, -1, 1, false)]).toEqual([0, 0, 0, 0, 0, 0, 4, 5, 6, 0, 0, 0]);
    expect([...moveAndMirror(pixels, 2, 3, -5, true)]).toEqual(Array.from({ length: 12 }, () => 0));
  });
});

describe('training batches', () => {
  const mixing = { mixup: 0.8, cutmix: 1, labelSmoothing: 0.1 };
  const batches = async (folder: string, size = 8, given: object = {}, skipBad = false): Promise<TrainingImages> => {
    const reader = new ImageReader(await listImageFolder(folder), { transform: imageTransform(size), skipBad });
    return new TrainingImages(reader, { seed: 3, augmentation: 'full', mixing, batch: 4, microBatches: 2, ...given });
  };

  test.each([8, 128])('repeat, differ by place, and are shared among processes, %i pixels', async (size) => {
    const whole = await (await batches(small, size)).inputs(5, 1, { start: 0, end: 4 });
    expect(await (await batches(small, size)).inputs(5, 1, { start: 0, end: 4 })).toEqual(whole);
    expect(await (await batches(small, size)).inputs(5, 0, { start: 0, end: 4 })).not.toEqual(whole);
    for (const processes of [2, 4]) {
      const rows = 4 / processes;
      for (let rank = 0; rank < processes; rank++) {
        const part = await (await batches(small, size)).inputs(5, 1, { start: rank * rows, end: (rank + 1) * rows });
        expect(part.images).toEqual(whole.images.subarray(rank * rows * 3 * size * size, (rank + 1) * rows * 3 * size * size));
        expect(part.targets).toEqual(whole.targets.subarray(rank * rows * 3, (rank + 1) * rows * 3));
      }
    }
  });

  test('show each picture once in an epoch', async () => {
    const one = await batches(small, 8, { mixing: { mixup: 0, cutmix: 0, labelSmoothing: 0 }, augmentation: 'none', batch: 3 });
    const seen = new Set<string>();
    for (const index of [0, 1]) {
      const { images } = await one.inputs(7, index, { start: 0, end: 3 });
      for (let i = 0; i < 3; i++) seen.add(images.slice(i * 192, (i + 1) * 192).join());
    }
    expect(seen.size).toBe(6);
  });

  test('name a damaged picture, or leave it out and go on the same way', async () => {
    const folder = mkdtempSync(join(root, 'bad-'));
    for (const name of ['a', 'b']) mkdirSync(join(folder, name));
    await picture(join(folder, 'a', '1.png'), '#f00');
    writeFileSync(join(folder, 'a', '2.png'), 'damaged');
    await picture(join(folder, 'b', '1.png'), '#00f');
    const rows = { start: 0, end: 4 };
    await expect((await batches(folder)).inputs(0, 0, rows)).rejects.toMatchObject({
      code: 'FORMAT',
      message: expect.stringContaining(join('a', '2.png')) as string,
    });
    for (const size of [8, 128]) {
      const going = await batches(folder, size, {}, true);
      await going.inputs(0, 0, rows);
      expect(await going.inputs(0, 1, rows)).toEqual(await (await batches(folder, size, {}, true)).inputs(0, 1, rows));
    }
    const warnings: string[] = [];
    const reader = new ImageReader(await listImageFolder(folder), {
      transform: imageTransform(8),
      skipBad: true,
      onWarning: (message) => warnings.push(message),
    });
    for (let i = 0; i < 2; i++) expect((await reader.batch([0, 1, 2])).labels).toEqual(Int32Array.of(0, 1));
    expect(warnings).toEqual([expect.stringContaining(join('a', '2.png'))]);
    writeFileSync(join(folder, 'a', '1.png'), '');
    writeFileSync(join(folder, 'b', '1.png'), '');
    await expect((await batches(folder, 8, {}, true)).inputs(0, 0, rows)).rejects.toMatchObject({ code: 'FORMAT' });
  });
});
