/** The gradient of `linear` with respect to its input. */

import { MatMambaError } from '../../errors.ts';
import { type Segment, type Sym, segmentColumns } from '../../graph/graph.ts';
import { formatShape, sizeOf } from '../../tensor/tensor.ts';
import { defineOp } from '../op.ts';

export const NO_SEGMENTS: readonly Segment[] = [];

/** Rows of the weight in all segments. */
export function rowsIn(segments: readonly Segment[]): number {
  return segments.reduce((sum, { count }) => sum + count, 0);
}

/** Checks dy's columns and the weight's rows and columns against the segments. @throws SHAPE */
export function checkSegments(name: string, dy: Sym, weight: Sym | undefined, segments: readonly Segment[], width: number): void {
  const fail = (message: string): never => {
    throw new MatMambaError('SHAPE', `${name}: ${message}`);
  };
  const columns = segments.length === 1 ? segments[0]!.count : segmentColumns(segments).total;
  if (dy.width !== columns) fail(`'dy' expected ${columns} columns, got ${formatShape(dy.shape)}`);
  if (!weight) return;
  const { shape } = weight;
  if (sizeOf(shape.slice(1)) < width) fail(`the weight expected (rows, at least ${width}), got ${formatShape(shape)}`);
  for (const { start, count } of segments) {
    if (count < 1 || start < 0 || start + count > shape[0]!) fail(`rows ${start}..${start + count} of ${formatShape(shape)}`);
  }
}

/**
 * dx[:, :width] = sum over segments s and i < s.count of dy[:, column(s) + i] * weight[s.start + i, :width].
 * dy: (*, linearWidth(segments)), weight: (R, >= width), dx: (*, width).
 * @throws SHAPE
 */
export const linearInputBackward = defineOp({
  name: 'linear_input_backward',
  inputs: { dy: '* Y', weight: 'matrix' },
  outputs: { dx: ({ leading }, { width }) => ({ shape: [...leading, width] }) },
  attributes: { segments: NO_SEGMENTS, width: 0 },
  flops: ({ rows }, { segments, width }) => 2 * rows! * width * rowsIn(segments),
  check: ({ dy, weight }, { segments, width }) => checkSegments('linear_input_backward', dy!, weight, segments, width),
});
