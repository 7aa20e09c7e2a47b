import type { OpCase } from '../cases.ts';

export const lastRowsBackwardCases: readonly OpCase[] = [
  { name: 'last of one', operands: { dy: { shape: [1, 1, 20] } }, attributes: { length: 7 }, tolerance: 0 },
  {
    name: 'ragged',
    operands: { dy: { shape: [3, 2, 20] }, lengths: { shape: [3], dtype: 'i32', fill: { kind: 'values', values: [7, 2, 5] } } },
    attributes: { length: 7 },
    tolerance: 0,
  },
];
