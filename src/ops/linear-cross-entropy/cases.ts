import type { OpCase } from '../cases.ts';

/** Few and many rows (more than one chunk), odd vocabularies, ignored targets, and logits far beyond exp's range. */
export const linearCrossEntropyCases: readonly OpCase[] = [
  { name: 'one token', rows: 1, width: 24, vocabulary: 50, scale: 1 },
  { name: 'odd vocabulary', rows: 7, width: 12, vocabulary: 83, scale: 1 },
  { name: 'two chunks', rows: 259, width: 48, vocabulary: 104, scale: 1 },
  { name: 'large logits', rows: 5, width: 64, vocabulary: 257, scale: 40 },
].map(({ name, rows, width, vocabulary, scale }) => ({
  name,
  operands: {
    x: { shape: [rows, width], fill: { kind: 'normal', scale } },
    weight: { shape: [vocabulary, width] },
    targets: { shape: [rows], dtype: 'i32', fill: { kind: 'values', values: [3, vocabulary - 1, -1, 0] } },
  },
  tolerance: 3e-6,
}));
