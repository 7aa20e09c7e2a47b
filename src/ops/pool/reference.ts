import type { Reference } from '../cases.ts';

export const poolReference: Reference = ({ x }, { average }) => {
  const [B, T, D] = x!.shape as [number, number, number];
  const data = new Float64Array(B * D);
  for (let b = 0; b < B; b++)
    for (let d = 0; d < D; d++) {
      if (!average) data[b * D + d] = x!.data[(b * T + T - 1) * D + d]!;
      else for (let t = 0; t < T - 1; t++) data[b * D + d]! += x!.data[(b * T + t) * D + d]! / (T - 1);
    }
  return { y: { shape: [B, D], data } };
};
