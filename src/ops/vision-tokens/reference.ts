import type { Reference } from '../cases.ts';

export const visionTokensReference: Reference = ({ x, classToken, position }) => {
  const [B, L, D] = x!.shape as [number, number, number];
  const data = new Float64Array(B * (L + 1) * D);
  for (let b = 0; b < B; b++)
    for (let t = 0; t <= L; t++)
      for (let d = 0; d < D; d++) {
        const token = t < L ? x!.data[(b * L + t) * D + d]! : classToken!.data[d]!;
        data[(b * (L + 1) + t) * D + d] = token + position!.data[t * D + d]!;
      }
  return { y: { shape: [B, L + 1, D], data } };
};
