import type { Reference } from '../cases.ts';

export const poolBackwardReference: Reference = ({ dy }, { length, average }) => {
  const [B, D] = dy!.shape as [number, number];
  const T = length as number;
  const data = new Float64Array(B * T * D);
  for (let b = 0; b < B; b++)
    for (let t = 0; t < T; t++)
      for (let d = 0; d < D; d++) {
        const share = average ? (t < T - 1 ? 1 / (T - 1) : 0) : t === T - 1 ? 1 : 0;
        data[(b * T + t) * D + d] = share * dy!.data[b * D + d]!;
      }
  return { dx: { shape: [B, T, D], data } };
};
