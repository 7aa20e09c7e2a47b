import type { OpCase } from '../cases.ts';

export const addCases: readonly OpCase[] = [3, 64].map((width) => ({
  name: `17 x ${width}`,
  operands: { a: { shape: [17, width] }, b: { shape: [17, width] } },
  tolerance: 1e-7,
}));
