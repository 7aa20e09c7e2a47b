import type { Reference } from '../cases.ts';
import { normRows } from '../norm/reference.ts';

export const addNormReference: Reference = ({ x, residual, weight, bias }, { eps, center }) => {
  const sum = { shape: x!.shape, data: x!.data.map((value, i) => value + residual!.data[i]!) };
  return { y: normRows(sum, weight!, bias, eps as number, center as boolean), sum };
};
