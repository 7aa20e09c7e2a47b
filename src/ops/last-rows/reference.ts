import type { Reference } from '../cases.ts';

export const lastRowsReference: Reference = ({ x, lengths }, { count }) => {
  const [B, T, D] = x!.shape as [number, number, number];
  const n = count as number;
  const data = new Float64Array(B * n * D);
  for (let b = 0; b < B; b++)
    for (let i = 0; i < n; i++) {
      const row = Math.max(0, (lengths?.data[b] ?? T) - n + i);
      data.set(x!.data.subarray((b * T + row) * D, (b * T + row + 1) * D), (b * n + i) * D);
    }
  return { y: { shape: [B, n, D], data } };
};
