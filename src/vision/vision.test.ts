import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, describe, expect, test } from 'vitest';
import { readImage } from './decode.ts';
import { readLabels } from './labels.ts';
import { IMAGENET_DEVIATION, IMAGENET_MEAN, imageTransform, normalisePixels } from './preprocess.ts';

const folder = mkdtempSync(join(tmpdir(), 'matmamba-vision-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Pixel values of one channel that come of an 8-bit value. */
const normalised = (value: number, channel: number): number =>
  (value / 255 - IMAGENET_MEAN[channel]!) / IMAGENET_DEVIATION[channel]!;

describe('image transforms', () => {
  test('keep the margin of ImageNet at its sizes, none at small ones', () => {
    expect(imageTransform(224)).toMatchObject({ size: 224, resize: 256 });
    expect(imageTransform(384)).toMatchObject({ resize: 439 });
    expect(imageTransform(32)).toMatchObject({ resize: 32 });
    expect(imageTransform(32, { image_mean: [0, 0, 0], image_std: [1, 1, 1], crop_pct: 0.5, other: true })).toEqual({
      size: 32,
      resize: 64,
      mean: [0, 0, 0],
      deviation: [1, 1, 1],
    });
    expect(() => imageTransform(32, { image_mean: [1] })).toThrow(/preprocessor_config\.json: image_mean/);
  });

  test('lay pixels out by channel', () => {
    const target = new Float32Array(12);
    normalisePixels(Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255), imageTransform(2), target);
    expect(target[1]).toBeCloseTo(normalised(3, 0), 5);
    expect(target[11]).toBeCloseTo(normalised(255, 2), 5);
    expect(() => normalisePixels(new Uint8Array(3), imageTransform(2), target)).toThrow(/pixels: expected/);
  });
});

describe('image files', () => {
  const transform = imageTransform(8);
  const centre = ({ array }: { array: ArrayLike<number> }): number[] => [0, 1, 2].map((channel) => array[64 * channel + 27]!);

  test('of every kind become RGB, upright, cut in the centre', async () => {
    // Left half red, right half blue, twice as wide as high: the centre square has both.
    const wide = sharp({ create: { width: 32, height: 16, channels: 3, background: '#f00' } }).composite([
      { input: { create: { width: 16, height: 16, channels: 3, background: '#00f' } }, left: 16, top: 0 },
    ]);
    const path = join(folder, 'wide.png');
    await wide.png().toFile(path);
    const { array, shape } = await readImage(path, transform);
    expect(shape).toEqual([1, 3, 8, 8]);
    expect((array as Float32Array)[24]).toBeCloseTo(normalised(255, 0), 4);
    expect((array as Float32Array)[31]).toBeCloseTo(normalised(0, 0), 4);
    expect((array as Float32Array)[128 + 31]).toBeCloseTo(normalised(255, 2), 4);
    // Turned by its EXIF orientation, red comes to lie on top.
    const turned = join(folder, 'turned.jpg');
    await sharp(path).withMetadata({ orientation: 6 }).jpeg({ quality: 100, chromaSubsampling: '4:4:4' }).toFile(turned);
    const upright = (await readImage(turned, transform)).array as Float32Array;
    expect(upright[3]!).toBeGreaterThan(upright[59]! + 3);
    for (const [name, image] of [
      ['grey.png', sharp({ create: { width: 9, height: 12, channels: 3, background: '#808080' } }).toColourspace('b-w')],
      ['alpha.png', sharp({ create: { width: 9, height: 12, channels: 4, background: { r: 128, g: 128, b: 128, alpha: 0.5 } } })],
    ] as const) {
      await image.png().toFile(join(folder, name));
      const values = centre((await readImage(join(folder, name), transform)) as { array: ArrayLike<number> });
      values.forEach((value, channel) => expect(value, name).toBeCloseTo(normalised(128, channel), 1));
    }
  });

  test('that are missing or damaged are refused by name', async () => {
    const broken = join(folder, 'broken.jpg');
    writeFileSync(broken, 'no image');
    await expect(readImage(broken, transform)).rejects.toMatchObject({
      code: 'FORMAT',
      message: expect.stringContaining('broken.jpg') as string,
    });
    await expect(readImage(join(folder, 'none.jpg'), transform)).rejects.toMatchObject({ code: 'FILE' });
  });
});

test('labels come as lines, a list, or numbered names', async () => {
  const read = async (content: string): Promise<string[]> => {
    writeFileSync(join(folder, 'labels'), content);
    return readLabels(join(folder, 'labels'));
  };
  expect(await read('cat\r\ndog\n\n')).toEqual(['cat', 'dog']);
  expect(await read('["cat", "dog"]')).toEqual(['cat', 'dog']);
  expect(await read('{"2": ["n01", "dog"], "0": "cat"}')).toEqual(['cat', 'class 1', 'dog']);
  await expect(read('{"a": 1}')).rejects.toMatchObject({ code: 'FORMAT' });
  await expect(read('[1')).rejects.toMatchObject({ code: 'FORMAT' });
  await expect(readLabels(join(folder, 'none'))).rejects.toMatchObject({ code: 'FILE' });
});
