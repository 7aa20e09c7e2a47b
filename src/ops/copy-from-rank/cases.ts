import type { OpCase } from '../cases.ts';

export const copyFromRankCases: readonly OpCase[] = [
  { name: 'a vector', operands: { x: { shape: [1003] } }, attributes: { root: 0 }, tolerance: 0 },
];
