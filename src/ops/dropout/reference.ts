import { type HostValue, type Reference } from '../cases.ts';
import { philox } from '../../tensor/random.ts';

/** 1 / (1 - rate) or 0 for number `index` of a stream; shared with `drop_path`. */
export function keepScale(index: number, seed: HostValue, stream: number, rate: number): number {
  const block = new Uint32Array(4);
  philox(Math.floor(index / 4) >>> 0, Math.floor(index / 2 ** 34), stream, 1, seed.data[0]!, seed.data[1]!, block);
  return (block[index % 4]! >>> 8) * 2 ** -24 < rate ? 0 : 1 / (1 - rate);
}

export const dropoutReference: Reference = ({ x, seed }, { rate, stream, length }) => {
  const first = seed!.data[2]! * (length as number) * x!.shape.at(-1)!;
  const data = x!.data.map((value, i) => value * keepScale(first + i, seed!, stream as number, rate as number));
  return { y: { shape: x!.shape, data } };
};
