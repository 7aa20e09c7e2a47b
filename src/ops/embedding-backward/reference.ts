import type { Reference } from '../cases.ts';

export const embeddingBackwardReference: Reference = ({ ids, dy, dWeight }) => {
  const width = dWeight!.shape[1]!;
  const data = Float64Array.from(dWeight!.data);
  for (const [t, id] of ids!.data.entries()) {
    if (id < 0 || id >= dWeight!.shape[0]!) continue;
    for (let i = 0; i < width; i++) data[id * width + i]! += dy!.data[t * width + i]!;
  }
  return { dWeight: { shape: dWeight!.shape, data } };
};
