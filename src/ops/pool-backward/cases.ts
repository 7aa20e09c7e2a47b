import type { OpCase } from '../cases.ts';

export const poolBackwardCases: readonly OpCase[] = [false, true].map((average) => ({
  name: average ? 'average' : 'class token',
  operands: { dy: { shape: [3, 36] } },
  attributes: { length: 17, average },
  tolerance: 1e-6,
}));
