import { type Segment, segmentColumns } from '../../graph/graph.ts';
import type { HostValue, Reference } from '../cases.ts';

/** dy . weight over the segments' rows in float64; shared with `linear_cross_entropy_backward`. */
export function inputGradient(dy: HostValue, weight: HostValue, segments: readonly Segment[], width: number): HostValue {
  const dyWidth = dy.shape.at(-1)!;
  const stride = weight.shape[1]!;
  const rows = dy.data.length / dyWidth;
  const { columns } = segmentColumns(segments);
  const data = new Float64Array(rows * width);
  for (let row = 0; row < rows; row++) {
    for (const [s, { start, count }] of segments.entries()) {
      for (let i = 0; i < count; i++) {
        const g = dy.data[row * dyWidth + columns[s]! + i]!;
        for (let k = 0; k < width; k++) data[row * width + k]! += g * weight.data[(start + i) * stride + k]!;
      }
    }
  }
  return { shape: [...dy.shape.slice(0, -1), width], data };
}

export const linearInputBackwardReference: Reference = ({ dy, weight }, { segments, width }) => ({
  dx: inputGradient(dy!, weight!, segments as readonly Segment[], width as number),
});
