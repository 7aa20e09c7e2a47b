import type { OpCase } from '../cases.ts';

export const patchifyBackwardCases: readonly OpCase[] = [
  {
    name: '4 x 4',
    operands: { dy: { shape: [2, 6, 48] } },
    attributes: { patchSize: 4, channels: 3, height: 8, width: 12 },
    tolerance: 0,
  },
  {
    name: 'odd',
    operands: { dy: { shape: [1, 9, 9] } },
    attributes: { patchSize: 3, channels: 1, height: 9, width: 9 },
    tolerance: 0,
  },
];
