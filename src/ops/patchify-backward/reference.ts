import type { Reference } from '../cases.ts';

export const patchifyBackwardReference: Reference = ({ dy }, attributes) => {
  const { patchSize: p, channels: C, height: H, width: W } = attributes as Record<string, number>;
  const B = dy!.shape[0]!;
  const [down, across, columns] = [H! / p!, W! / p!, C! * p! * p!];
  const data = new Float64Array(dy!.data.length);
  for (const i of data.keys()) {
    const [x, y] = [i % W!, Math.floor(i / W!) % H!];
    const [c, b] = [Math.floor(i / (W! * H!)) % C!, Math.floor(i / (W! * H! * C!))];
    const patch = (b * down + Math.floor(y / p!)) * across + Math.floor(x / p!);
    data[i] = dy!.data[patch * columns + (c * p! + (y % p!)) * p! + (x % p!)]!;
  }
  return { dx: { shape: [B, C!, H!, W!], data } };
};
