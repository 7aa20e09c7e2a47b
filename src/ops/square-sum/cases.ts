import type { OpCase } from '../cases.ts';

export const squareSumCases: readonly OpCase[] = [
  { name: 'one number', operands: { x: { shape: [1] } }, tolerance: 1e-6 },
  {
    name: 'chained',
    operands: { x: { shape: [1003] }, before: { shape: [1], fill: { kind: 'uniform', low: 1, high: 2 } } },
    tolerance: 1e-6,
  },
  { name: 'long', operands: { x: { shape: [100_000] } }, tolerance: 1e-6 },
];
