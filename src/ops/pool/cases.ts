import type { OpCase } from '../cases.ts';

export const poolCases: readonly OpCase[] = [false, true].flatMap((average) =>
  [1, 3].map((batch) => ({
    name: `${average ? 'average' : 'class token'}, batch ${batch}`,
    operands: { x: { shape: [batch, 17, 36] } },
    attributes: { average },
    tolerance: 2e-6,
  })),
);
