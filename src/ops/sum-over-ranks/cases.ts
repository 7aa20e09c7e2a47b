import type { OpCase } from '../cases.ts';

export const sumOverRanksCases: readonly OpCase[] = [
  { name: 'for all', operands: { x: { shape: [1003] } }, tolerance: 0 },
  { name: 'for one', operands: { x: { shape: [12, 40] } }, attributes: { bucket: 1, root: 0 }, tolerance: 0 },
];
