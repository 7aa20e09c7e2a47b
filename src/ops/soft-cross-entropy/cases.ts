import type { OpCase } from '../cases.ts';

export const softCrossEntropyCases: readonly OpCase[] = [10, 1000].map((V) => ({
  name: `${V} classes`,
  operands: {
    logits: { shape: [5, V], fill: { kind: 'normal', scale: 4 } },
    targets: { shape: [5, V], fill: { kind: 'uniform', low: 0, high: 2 / V } },
    scale: { shape: [5, 1] },
  },
  tolerance: 3e-6,
}));
