/** The examples run as they stand, at sizes that take seconds; their shapes are the original README's. */

import { expect, test } from 'vitest';
import { blockExample } from '../examples/block.ts';
import { languageModelExample, storyExample } from '../examples/language-model.ts';
import { visionExample } from '../examples/vision.ts';

test('block', async () => {
  const shapes = await blockExample(2, 64);
  expect(shapes).toEqual(Array.from({ length: 4 }, () => [2, 64, 512]));
});

test('vision', async () => {
  const shapes = await visionExample(2, 128, 2, 64);
  expect(shapes).toEqual([
    [2, 1000],
    [2, 1000],
    [2, 1000],
    [2, 128],
  ]);
});

test('language model', async () => {
  const shapes = await languageModelExample(2, 16, 2, 128);
  expect(shapes).toEqual(Array.from({ length: 3 }, () => [2, 16, 50280]));
});

test('text of the embedded model at full width', async () => {
  expect(await storyExample('models/books-10m', 1)).toMatch(/^: "I am a man of the world, and I am a man of the world\."/);
});
