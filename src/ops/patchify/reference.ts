import type { Reference } from '../cases.ts';

export const patchifyReference: Reference = ({ x }, { patchSize }) => {
  const p = patchSize as number;
  const [B, C, H, W] = x!.shape as [number, number, number, number];
  const [across, down, width] = [W / p, H / p, C * p * p];
  const data = new Float64Array(x!.data.length);
  for (let b = 0; b < B; b++)
    for (let c = 0; c < C; c++)
      for (let i = 0; i < H; i++)
        for (let j = 0; j < W; j++) {
          const patch = (b * down + Math.floor(i / p)) * across + Math.floor(j / p);
          data[patch * width + (c * p + (i % p)) * p + (j % p)] = x!.data[((b * C + c) * H + i) * W + j]!;
        }
  return { y: { shape: [B, down * across, width], data } };
};
