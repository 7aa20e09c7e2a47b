import type { OpCase } from '../cases.ts';

/** Ids that repeat often, and widths that are padded. */
export const embeddingBackwardCases: readonly OpCase[] = [12, 96].map((width) => ({
  name: `50 tokens of 7 words x ${width}`,
  operands: {
    ids: { shape: [2, 25], dtype: 'i32', fill: { kind: 'below', bound: 7 } },
    dy: { shape: [2, 25, width] },
    dWeight: { shape: [9, width] },
  },
  tolerance: 1e-6,
}));
