import type { OpCase } from '../cases.ts';

const settings = { shape: [7], fill: { kind: 'values', values: [1e-2, 0.9, 0.95, 1e-8, 0.1, 0.19, 0.0975] } } as const;

export const adamwCases: readonly OpCase[] = [true, false].flatMap((decay) =>
  [1, 1027, 9001].map((size) => ({
    name: `${size} weights${decay ? ', decay' : ''}`,
    operands: {
      weight: { shape: [size] },
      gradient: { shape: [size] },
      dM: { shape: [size] },
      dV: { shape: [size], fill: { kind: 'uniform', low: 0.1, high: 1 } },
      factor: { shape: [1], fill: { kind: 'values', values: [0.5] } },
      settings,
    },
    attributes: { decay },
    tolerance: 1e-6,
  })),
);
