import { describe, expect, test } from 'vitest';
import { Random } from '../tensor/index.ts';
import { drawBeta, mixBatch, smoothedTargets } from './mixing.ts';

const BATCH = 4;
const SIZE = 8;
const CLASSES = 5;

function batch(): Float32Array {
  return Float32Array.from({ length: BATCH * 3 * SIZE * SIZE }, (_, i) => Math.floor(i / (3 * SIZE * SIZE)));
}

describe('mixing', () => {
  test('smoothed targets are distributions', () => {
    const targets = smoothedTargets([1, 4], CLASSES, 0.1);
    expect(targets[1]).toBeCloseTo(0.92);
    expect(targets[0]).toBeCloseTo(0.02);
    expect(targets.slice(5).reduce((a, b) => a + b)).toBeCloseTo(1);
  });

  test('beta draws have the mean and variance of Beta(a, a)', () => {
    for (const alpha of [0.8, 1, 3]) {
      const random = new Random(1, `beta ${alpha}`);
      const draws = Array.from({ length: 20_000 }, () => drawBeta(alpha, random));
      const mean = draws.reduce((a, b) => a + b) / draws.length;
      const variance = draws.reduce((sum, x) => sum + (x - mean) ** 2, 0) / draws.length;
      expect(mean).toBeCloseTo(0.5, 1);
      expect(Math.abs(variance / (1 / (4 * (2 * alpha + 1))) - 1)).toBeLessThan(0.05);
    }
  });

  test.each([
    ['mixup', { mixup: 0.8, cutmix: 0, labelSmoothing: 0 }],
    ['cutmix', { mixup: 0, cutmix: 1, labelSmoothing: 0 }],
  ])('%s: targets say how much of each picture there is', (_, options) => {
    for (let seed = 0; seed < 20; seed++) {
      const images = batch();
      const targets = mixBatch(images, [0, 1, 2, 3], CLASSES, SIZE, options, new Random(seed, 'mix'));
      for (let i = 0; i < BATCH; i++) {
        const pixels = images.subarray(i * 3 * SIZE * SIZE, (i + 1) * 3 * SIZE * SIZE);
        const mean = pixels.reduce((a, b) => a + b) / pixels.length;
        // Pictures are filled with their own label, so the mean pixel is the mean label.
        const label = targets.subarray(i * CLASSES, (i + 1) * CLASSES).reduce((sum, share, c) => sum + share * c, 0);
        expect(mean).toBeCloseTo(label, 4);
      }
    }
  });

  test('without mixing nothing changes', () => {
    const images = batch();
    mixBatch(images, [0, 1, 2, 3], CLASSES, SIZE, { mixup: 0, cutmix: 0, labelSmoothing: 0.1 }, new Random(0));
    expect(images).toEqual(batch());
  });
});
