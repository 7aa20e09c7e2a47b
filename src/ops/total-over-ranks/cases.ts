import type { OpCase } from '../cases.ts';

export const totalOverRanksCases: readonly OpCase[] = [{ name: 'one number', operands: { x: { shape: [1] } }, tolerance: 0 }];
