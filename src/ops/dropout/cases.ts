import type { OpCase } from '../cases.ts';

/** Another first sample, among them one whose elements are numbered beyond 32 bits. */
const FIRST_SAMPLES = [2, 2 ** 28];

export const dropoutCases: readonly OpCase[] = [0, 0.1, 0.6].flatMap((rate) =>
  [20, 32].flatMap((width) =>
    FIRST_SAMPLES.map((first) => ({
      name: `rate ${rate}, 9 x ${width} from sample ${first}`,
      operands: {
        x: { shape: [9, width] },
        seed: { shape: [3], dtype: 'i32', fill: { kind: 'values', values: [12345, -7, first] } },
      },
      attributes: { rate, stream: 5, length: 3 },
      tolerance: 1e-6,
    })),
  ),
);
