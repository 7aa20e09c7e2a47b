import type { OpCase } from '../cases.ts';
import { normCases } from '../norm/cases.ts';

/** The cases of `norm` with a residual. */
export const addNormCases: readonly OpCase[] = normCases.map((norm) => ({
  ...norm,
  operands: { ...norm.operands, residual: { shape: norm.operands['x']!.shape } },
}));
