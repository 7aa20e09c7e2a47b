import type { Reference } from '../cases.ts';

export const clipFactorReference: Reference = ({ squares, settings }) => {
  const norm = Math.sqrt(squares!.data[0]!);
  const factor = Number.isFinite(norm) ? Math.min(1, settings!.data[0]! / (norm + 1e-6)) : 0;
  return { factor: { shape: [1], data: Float64Array.of(factor) }, norm: { shape: [1], data: Float64Array.of(norm) } };
};
