/** Float64 loops of the convolution's gradient. */

import { type Segment, segmentColumns } from '../../graph/graph.ts';
import type { HostValue, Reference } from '../cases.ts';
import { accumulated } from '../norm-backward/reference.ts';

export const conv1dSiluBackwardReference: Reference = (operands, attributes) => {
  const { x, weight, bias, dy, dWeight, dBias } = operands as Record<string, HostValue> &
    Record<'x' | 'weight' | 'dy', HostValue>;
  const segments = attributes.segments as readonly Segment[];
  const { batch, length } = attributes as { batch: number; length: number };
  const [channels, , taps] = weight.shape as [number, number, number];
  const width = x.shape.at(-1)!;
  const { columns } = segmentColumns(segments);
  const dx = new Float64Array(x.data.length);
  const weightChange = new Float64Array(channels * taps);
  const biasChange = new Float64Array(channels);
  for (let b = 0; b < batch; b++) {
    for (const [s, { start, count }] of segments.entries()) {
      for (let i = 0; i < count; i++) {
        const channel = start + i;
        const at = (t: number): number => (b * length + t) * width + columns[s]! + i;
        for (let t = 0; t < length; t++) {
          let sum = bias ? bias.data[channel]! : 0;
          const first = t - taps + 1;
          for (let k = Math.max(0, -first); k < taps; k++) sum += weight.data[channel * taps + k]! * x.data[at(first + k)]!;
          const s1 = 1 / (1 + Math.exp(-sum));
          const g = dy.data[at(t)]! * s1 * (1 + sum * (1 - s1));
          biasChange[channel]! += g;
          for (let k = Math.max(0, -first); k < taps; k++) {
            weightChange[channel * taps + k]! += g * x.data[at(first + k)]!;
            dx[at(first + k)]! += g * weight.data[channel * taps + k]!;
          }
        }
      }
    }
  }
  const results: Record<string, HostValue> = { dx: { shape: x.shape, data: dx } };
  if (dWeight) results['dWeight'] = accumulated(dWeight, weightChange)!;
  if (dBias) results['dBias'] = accumulated(dBias, biasChange)!;
  return results;
};
