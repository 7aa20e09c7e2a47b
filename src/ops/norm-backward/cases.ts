import type { OpCase } from '../cases.ts';

/** Both norms, with and without a gradient of the sum, padded widths. */
export const normBackwardCases: readonly OpCase[] = [20, 384].flatMap((width) =>
  [1, 67].flatMap((rows) =>
    [false, true].map((center) => ({
      name: `${center ? 'layer' : 'rms'} ${rows} x ${width}`,
      operands: {
        x: { shape: [rows, width], fill: { kind: 'normal', scale: 2, shift: 0.5 } },
        weight: { shape: [width], fill: { kind: 'normal', shift: 1, scale: 0.2 } },
        dy: { shape: [rows, width] },
        ...(rows > 1 ? { dSum: { shape: [rows, width] } } : {}),
        dWeight: { shape: [width] },
        ...(center ? { dBias: { shape: [width] } } : {}),
      },
      attributes: { eps: 1e-5, center },
      tolerance: 3e-6,
    })),
  ),
);
