import type { OpCase } from '../cases.ts';

export const patchifyCases: readonly OpCase[] = [
  { name: '4 x 4 patches', operands: { x: { shape: [2, 3, 16, 16] } }, attributes: { patchSize: 4 }, tolerance: 0 },
  {
    name: '8 x 8 patches of a wide image',
    operands: { x: { shape: [1, 3, 16, 40] } },
    attributes: { patchSize: 8 },
    tolerance: 0,
  },
  { name: 'odd patches, one channel', operands: { x: { shape: [2, 1, 9, 9] } }, attributes: { patchSize: 3 }, tolerance: 0 },
];
