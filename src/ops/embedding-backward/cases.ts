import type { OpCase } from '../cases.ts';

/** Ids that repeat often, and widths that are padded; one id for thousands of tokens; ids outside the table. */
export const embeddingBackwardCases: readonly OpCase[] = [
  ...[12, 96].map((width) => ({ tokens: [2, 25], width, rows: 9, ids: { kind: 'below', bound: 7 } as const })),
  { tokens: [2100], width: 20, rows: 3, ids: { kind: 'values', values: [2, 2, 2, 0, 2, 2] } as const },
  { tokens: [4200], width: 20, rows: 900, ids: { kind: 'below', bound: 1000 } as const },
  { tokens: [40], width: 20, rows: 9, ids: { kind: 'values', values: [-1, 3, 9, 3, 0] } as const },
].map(({ tokens, width, rows, ids }) => ({
  name: `${tokens.join(' x ')} tokens, ${rows} words x ${width}`,
  operands: {
    ids: { shape: tokens, dtype: 'i32', fill: ids },
    dy: { shape: [...tokens, width] },
    dWeight: { shape: [rows, width] },
  },
  tolerance: 1e-6,
}));
