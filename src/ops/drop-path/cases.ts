import type { OpCase } from '../cases.ts';

const seed = { shape: [3], dtype: 'i32', fill: { kind: 'values', values: [99, 1, 5] } } as const;

export const dropPathCases: readonly OpCase[] = [0, 0.5].map((rate) => ({
  name: `rate ${rate}`,
  operands: { x: { shape: [13, 3, 20] }, seed },
  attributes: { rate, stream: 2 },
  tolerance: 1e-6,
}));
