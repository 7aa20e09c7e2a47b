import type { OpCase } from '../cases.ts';

/** Few and many rows (more than one chunk), odd vocabularies, ignored targets, no gradient of the weight, large logits. */
export const linearCrossEntropyBackwardCases: readonly OpCase[] = [
  { name: 'one token', rows: 1, width: 24, vocabulary: 50, scale: 1 },
  { name: 'odd vocabulary', rows: 7, width: 12, vocabulary: 83, scale: 1 },
  { name: 'odd rows', rows: 67, width: 36, vocabulary: 130, scale: 1 },
  { name: 'two chunks', rows: 1030, width: 48, vocabulary: 104, scale: 1 },
  { name: 'input alone', rows: 3, width: 48, vocabulary: 97, scale: 1, inputAlone: true },
  { name: 'a teacher', rows: 300, width: 48, vocabulary: 83, scale: 1, distill: 0.3 },
  { name: 'large logits', rows: 5, width: 64, vocabulary: 257, scale: 100 },
].map(({ name, rows, width, vocabulary, scale, inputAlone, distill }) => ({
  name,
  operands: {
    x: { shape: [rows, width], fill: { kind: 'normal', scale } },
    weight: { shape: [vocabulary, width], fill: { kind: 'normal', scale: width ** -0.5 } },
    targets: { shape: [rows], dtype: 'i32', fill: { kind: 'values', values: [3, vocabulary - 1, -1, 0] } },
    dLoss: { shape: [rows, 1], fill: { kind: 'normal', shift: 1, scale: 0.5 } },
    ...(distill === undefined ? {} : { teacher: { shape: [rows, width] } }),
    ...(inputAlone ? {} : { dWeight: { shape: [vocabulary, width] } }),
  },
  ...(distill === undefined ? {} : { attributes: { distill } }),
  tolerance: 3e-6,
}));
