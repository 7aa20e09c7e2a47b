import type { OpCase } from '../cases.ts';

export const lastRowsCases: readonly OpCase[] = [
  { name: 'last of one', operands: { x: { shape: [1, 7, 20] } }, attributes: { count: 1 }, tolerance: 0 },
  {
    name: 'ragged',
    operands: { x: { shape: [3, 7, 20] }, lengths: { shape: [3], dtype: 'i32', fill: { kind: 'values', values: [7, 2, 5] } } },
    attributes: { count: 2 },
    tolerance: 0,
  },
];
