/** Every shape has a division among warps and blocks that covers its columns and fits into a multiprocessor. */

import { expect, test } from 'vitest';
import { fitsChunks, scanSplit } from './cuda-split.ts';

test('heads and their columns are covered, within registers and shared memory', () => {
  for (const dState of [1, 13, 16, 64, 128, 200, 256]) {
    expect(fitsChunks(dState)).toBe(true);
    for (let headdim = 1; headdim <= 128; headdim++) {
      for (const [batch, heads] of [
        [1, 1],
        [1, 64],
        [3, 19],
        [128, 8],
        [128, 64],
      ] as const) {
        const split = scanSplit({ batch, length: 512, heads, headdim, dState, multiprocessors: 132 });
        const where = JSON.stringify({ dState, headdim, heads, split });
        const columns = split.warps * (split.parts > 1 ? 8 * split.tiles : split.heads * headdim);
        expect(8 * split.tiles * split.parts, where).toBeGreaterThanOrEqual(headdim);
        expect((split.blocks * split.warps * split.heads) / split.parts, where).toBeGreaterThanOrEqual(heads);
        expect(8 * split.pieces, where).toBeGreaterThanOrEqual(columns);
        expect(split.sharedBytes, where).toBeLessThanOrEqual(227 * 1024);
        expect(split.warps, where).toBeLessThanOrEqual(8);
        expect(split.segments * split.segment, where).toBeGreaterThanOrEqual(8);
        expect(split.batchBlocks, where).toBeLessThanOrEqual(batch);
        expect(split.batchBlocks, where).toBeGreaterThanOrEqual(1);
      }
    }
  }
});

test('too long a state is left to the kernel that goes step by step', () => {
  expect(fitsChunks(257)).toBe(false);
});
