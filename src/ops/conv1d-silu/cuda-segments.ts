/** Which channel a column of the convolution stands for, in CUDA: the segments as kernel arguments. */

import { type Segment, segmentColumns } from '../../graph/graph.ts';
import { type CudaArgument, i32 } from '../cuda-kernel.ts';

/**
 * Defines for `count` segments: SEGMENT_PARAMETERS, the kernel's parameters (column, channel, count of each), and
 * FIND_SEGMENT(column), which declares `channel`, that of the column, and `live`, the segment's columns from there on (0
 * or less in the columns that pad it).
 */
export function segmentDefines(count: number): Record<string, string> {
  const indices = Array.from({ length: count }, (_, s) => s);
  const later = indices
    .slice(1)
    .map((s) => `if ((column) >= column${s}) { channel = start${s} - column${s}; live = column${s} + count${s}; }`);
  return {
    SEGMENT_PARAMETERS: indices.map((s) => `int column${s}, int start${s}, int count${s}`).join(', '),
    'FIND_SEGMENT(column)': `int channel = start0 - column0, live = column0 + count0; ${later.join(' ')} channel += (column); live -= (column);`,
  };
}

export function segmentArguments(segments: readonly Segment[]): CudaArgument[] {
  const { columns } = segmentColumns(segments);
  return segments.flatMap(({ start, count }, s) => [i32(columns[s]!), i32(start), i32(count)]);
}
