import type { OpCase } from '../cases.ts';

export const visionTokensCases: readonly OpCase[] = [1, 3].map((batch) => ({
  name: `batch ${batch}`,
  operands: { x: { shape: [batch, 9, 64] }, classToken: { shape: [1, 1, 64] }, position: { shape: [1, 10, 64] } },
  tolerance: 1e-6,
}));
