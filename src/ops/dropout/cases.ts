import type { OpCase } from '../cases.ts';

const seed = { shape: [3], dtype: 'i32', fill: { kind: 'values', values: [12345, -7, 2] } } as const;

export const dropoutCases: readonly OpCase[] = [0, 0.1, 0.6].flatMap((rate) =>
  [20, 32].map((width) => ({
    name: `rate ${rate}, 9 x ${width}`,
    operands: { x: { shape: [9, width] }, seed },
    attributes: { rate, stream: 5, length: 3 },
    tolerance: 1e-6,
  })),
);
