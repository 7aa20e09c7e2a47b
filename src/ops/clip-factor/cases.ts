import type { OpCase } from '../cases.ts';

const settings = { shape: [1], fill: { kind: 'values', values: [1] } } as const;

export const clipFactorCases: readonly OpCase[] = [0.25, 9].map((value) => ({
  name: `norm ${Math.sqrt(value)}`,
  operands: { squares: { shape: [1], fill: { kind: 'values', values: [value] } }, settings },
  tolerance: 1e-6,
}));
