import type { OpCase } from '../cases.ts';

export const gatedSiluBackwardCases: readonly OpCase[] = [6, 257].map((width) => ({
  name: `13 x ${width}`,
  operands: {
    x: { shape: [13, width] },
    z: { shape: [13, width], fill: { kind: 'normal', scale: 10 } },
    dy: { shape: [13, width] },
  },
  tolerance: 2e-6,
}));
