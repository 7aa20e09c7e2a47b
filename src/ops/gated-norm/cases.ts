import type { OpCase } from '../cases.ts';

/** Inner widths of head dimensions 3, 12 and 24, both orders. */
export const gatedNormCases: readonly OpCase[] = [6, 24, 384, 1536].flatMap((width) =>
  [1, 255].flatMap((rows) =>
    [false, true].map((normBeforeGate) => ({
      name: `${normBeforeGate ? 'norm first' : 'gate first'} ${rows} x ${width}`,
      operands: {
        x: { shape: [rows, width], fill: { kind: 'normal', scale: 2 } },
        z: { shape: [rows, width], fill: { kind: 'normal', scale: 3 } },
        weight: { shape: [width + 18], fill: { kind: 'normal', shift: 1 } },
      },
      attributes: { eps: 1e-5, normBeforeGate },
      tolerance: 2e-6,
    })),
  ),
);
