import type { Reference } from '../cases.ts';

export const squareSumReference: Reference = ({ x, before }) => ({
  y: { shape: [1], data: Float64Array.of(x!.data.reduce((sum, value) => sum + value * value, before?.data[0] ?? 0)) },
});
