import type { OpCase } from '../cases.ts';

/** Odd widths, and gates far out where silu is 0 or the identity. */
export const gatedSiluCases: readonly OpCase[] = [6, 24, 257].flatMap((width) =>
  [1, 3, 64].map((rows) => ({
    name: `${rows} x ${width}`,
    operands: { x: { shape: [rows, width] }, z: { shape: [rows, width], fill: { kind: 'normal', scale: 30 } } },
    tolerance: 2e-6,
  })),
);
