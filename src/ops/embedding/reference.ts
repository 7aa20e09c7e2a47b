import type { Reference } from '../cases.ts';

export const embeddingReference: Reference = ({ ids, weight }) => {
  const width = weight!.shape[1]!;
  const data = new Float64Array(ids!.data.length * width);
  for (const [t, id] of ids!.data.entries()) data.set(weight!.data.subarray(id * width, (id + 1) * width), t * width);
  return { y: { shape: [...ids!.shape, width], data } };
};
