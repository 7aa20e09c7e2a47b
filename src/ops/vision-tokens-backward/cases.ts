import type { OpCase } from '../cases.ts';

export const visionTokensBackwardCases: readonly OpCase[] = [1, 5].map((batch) => ({
  name: `batch ${batch}`,
  operands: { dy: { shape: [batch, 10, 64] }, dClass: { shape: [1, 1, 64] }, dPosition: { shape: [1, 10, 64] } },
  tolerance: 1e-6,
}));
