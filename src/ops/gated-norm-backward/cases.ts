import type { OpCase } from '../cases.ts';

export const gatedNormBackwardCases: readonly OpCase[] = [6, 384].flatMap((width) =>
  [1, 67].flatMap((rows) =>
    [false, true].map((normBeforeGate) => ({
      name: `${normBeforeGate ? 'norm first' : 'gate first'} ${rows} x ${width}`,
      operands: {
        x: { shape: [rows, width], fill: { kind: 'normal', scale: 2 } },
        z: { shape: [rows, width], fill: { kind: 'normal', scale: 3 } },
        weight: { shape: [width + 18], fill: { kind: 'normal', shift: 1 } },
        dy: { shape: [rows, width] },
        dWeight: { shape: [width + 18] },
      },
      attributes: { eps: 1e-5, normBeforeGate },
      tolerance: 3e-6,
    })),
  ),
);
