import type { OpCase } from '../cases.ts';

/** Widths with and without padding; one token, several and a batch. */
export const embeddingCases: readonly OpCase[] = [12, 24, 80, 384].flatMap((width) =>
  [[1], [2, 7], [257]].map((shape) => ({
    name: `${shape.join(' x ')} of 40 x ${width}`,
    operands: { ids: { shape, dtype: 'i32', fill: { kind: 'below', bound: 40 } }, weight: { shape: [40, width] } },
    tolerance: 0,
  })),
);
