import type { OpCase } from '../cases.ts';

const TOLERANCE = 2e-6;

/** Widths with and without padding, one row and many, both norms. */
export const normCases: readonly OpCase[] = [16, 20, 384, 771].flatMap((width) =>
  [1, 3, 257].flatMap((rows) =>
    [false, true].map((center) => ({
      name: `${center ? 'layer' : 'rms'} ${rows} x ${width}`,
      operands: {
        x: { shape: [rows, width], fill: { kind: 'normal', scale: 2, shift: 0.5 } },
        weight: { shape: [width], fill: { kind: 'normal', shift: 1, scale: 0.2 } },
        ...(center ? { bias: { shape: [width] } } : {}),
      },
      attributes: { eps: 1e-5, center },
      tolerance: TOLERANCE,
    })),
  ),
);
