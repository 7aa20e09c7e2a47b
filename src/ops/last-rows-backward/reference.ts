import type { Reference } from '../cases.ts';

export const lastRowsBackwardReference: Reference = ({ dy, lengths }, { length }) => {
  const [B, count, D] = dy!.shape as [number, number, number];
  const T = length as number;
  const data = new Float64Array(B * T * D);
  for (let b = 0; b < B; b++)
    for (let i = 0; i < count; i++) {
      const row = (lengths?.data[b] ?? T) - count + i;
      if (row >= 0) data.set(dy!.data.subarray((b * count + i) * D, (b * count + i + 1) * D), (b * T + row) * D);
    }
  return { dx: { shape: [B, T, D], data } };
};
