import type { HostValue, Reference } from '../cases.ts';
import { accumulated } from '../norm-backward/reference.ts';

export const visionTokensBackwardReference: Reference = ({ dy, dClass, dPosition }) => {
  const [B, T, D] = dy!.shape as [number, number, number];
  const dx = new Float64Array(B * (T - 1) * D);
  const position = new Float64Array(T * D);
  for (let b = 0; b < B; b++) {
    dx.set(dy!.data.subarray(b * T * D, ((b + 1) * T - 1) * D), b * (T - 1) * D);
    for (let i = 0; i < T * D; i++) position[i]! += dy!.data[b * T * D + i]!;
  }
  const results: Record<string, HostValue> = { dx: { shape: [B, T - 1, D], data: dx } };
  if (dClass) results['dClass'] = accumulated(dClass, position.slice((T - 1) * D))!;
  if (dPosition) results['dPosition'] = accumulated(dPosition, position)!;
  return results;
};
