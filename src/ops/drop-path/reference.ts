import type { Reference } from '../cases.ts';
import { keepScale } from '../dropout/reference.ts';

export const dropPathReference: Reference = ({ x, seed }, { rate, stream }) => {
  const sample = x!.data.length / x!.shape[0]!;
  const data = x!.data.map(
    (value, i) => value * keepScale(seed!.data[2]! + Math.floor(i / sample), seed!, stream as number, rate as number),
  );
  return { y: { shape: x!.shape, data } };
};
