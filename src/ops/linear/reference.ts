import { type Segment, segmentColumns } from '../../graph/graph.ts';
import type { HostValue, Reference } from '../cases.ts';
import { linearWidth } from './op.ts';

/** x . weight^T + bias in float64; shared with `linear_cross_entropy`. */
export function linearRows(
  x: HostValue,
  weight: HostValue,
  bias: HostValue | undefined,
  segments: readonly Segment[],
): HostValue {
  const width = x.shape.at(-1)!;
  const stride = weight.shape[1]!;
  const rows = x.data.length / width;
  const total = linearWidth(segments);
  const { columns } = segmentColumns(segments);
  const data = new Float64Array(rows * total);
  for (let row = 0; row < rows; row++) {
    for (const [s, { start, count }] of segments.entries()) {
      for (let i = 0; i < count; i++) {
        let sum = bias?.data[start + i] ?? 0;
        for (let k = 0; k < width; k++) sum += x.data[row * width + k]! * weight.data[(start + i) * stride + k]!;
        data[row * total + columns[s]! + i] = sum;
      }
    }
  }
  return { shape: [...x.shape.slice(0, -1), total], data };
}

export const linearReference: Reference = ({ x, weight, bias }, { segments }) => ({
  y: linearRows(x!, weight!, bias, segments as readonly Segment[]),
});
