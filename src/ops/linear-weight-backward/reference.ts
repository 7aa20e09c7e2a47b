import { type Segment, segmentColumns } from '../../graph/graph.ts';
import type { HostValue, Reference } from '../cases.ts';

/** dWeight plus dy^T . x in float64; shared with `linear_cross_entropy_backward`. */
export function addedWeightGradient(x: HostValue, dy: HostValue, dWeight: HostValue, segments: readonly Segment[]): HostValue {
  const width = x.shape.at(-1)!;
  const dyWidth = dy.shape.at(-1)!;
  const stride = dWeight.shape[1]!;
  const { columns } = segmentColumns(segments);
  const data = Float64Array.from(dWeight.data);
  for (let row = 0; row < x.data.length / width; row++) {
    for (const [s, { start, count }] of segments.entries()) {
      for (let i = 0; i < count; i++) {
        const g = dy.data[row * dyWidth + columns[s]! + i]!;
        for (let k = 0; k < width; k++) data[(start + i) * stride + k]! += g * x.data[row * width + k]!;
      }
    }
  }
  return { shape: dWeight.shape, data };
}

export const linearWeightBackwardReference: Reference = ({ x, dy, dWeight, dBias }, attributes) => {
  const segments = attributes['segments'] as readonly Segment[];
  const results: Record<string, HostValue> = {};
  if (dWeight) results['dWeight'] = addedWeightGradient(x!, dy!, dWeight, segments);
  // The bias is the column of a weight whose input is always 1.
  const ones = { shape: [...dy!.shape.slice(0, -1), 1], data: new Float64Array(dy!.data.length / dy!.shape.at(-1)!).fill(1) };
  if (dBias)
    results['dBias'] = {
      ...addedWeightGradient(ones, dy!, { ...dBias, shape: [dBias.shape[0]!, 1] }, segments),
      shape: dBias.shape,
    };
  return results;
};
