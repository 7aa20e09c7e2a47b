/** The linear map on row segments and a column prefix of a weight: every nested width of a layer is a view of it. */

import { MatMambaError } from '../../errors.ts';
import { type Segment, segmentColumns } from '../../graph/graph.ts';
import { formatShape } from '../../tensor/tensor.ts';
import { linearInputBackward } from '../linear-input-backward/op.ts';
import { linearWeightBackward } from '../linear-weight-backward/op.ts';
import { defineOp } from '../op.ts';

const NO_SEGMENTS: readonly Segment[] = [];

/** Columns of the result: exactly the count for one segment, each segment padded to 16 for several. */
export function linearWidth(segments: readonly Segment[]): number {
  return segments.length === 1 ? segments[0]!.count : segmentColumns(segments).total;
}

/**
 * y[:, column(s) + i] = x . weight[s.start + i, :K] + bias[s.start + i] for every segment s; the columns that pad a
 * segment to a multiple of 16 are zero. x: (*, K), weight: (R, >= K), bias: (R), y: (*, linearWidth(segments)).
 * @throws SHAPE
 */
export const linear = defineOp({
  name: 'linear',
  inputs: { x: '* K', weight: 'matrix', bias: 'vector?' },
  outputs: { y: ({ leading }, { segments }) => ({ shape: [...leading, linearWidth(segments)] }) },
  attributes: { segments: NO_SEGMENTS },
  flops: ({ rows, K }, { segments }) => 2 * rows! * K! * segments.reduce((sum, { count }) => sum + count, 0),
  gradient({ inputs: { x, weight, bias }, grads, attributes, wants, into, accumulate }) {
    const dy = grads.y!.reshapeRows(x!.shape.slice(0, -1));
    const dWeight = accumulate('weight');
    const dBias = bias && accumulate('bias');
    if (dWeight || dBias) linearWeightBackward({ x, dy, dWeight, dBias }, attributes);
    return wants('x') ? { x: linearInputBackward({ dy, weight }, { ...attributes, width: x!.width }, { dx: into('x') }).dx } : {};
  },
  check({ weight, bias }, { segments }, { axes: { K } }) {
    const { shape } = weight!;
    const fail = (message: string): never => {
      throw new MatMambaError('SHAPE', `linear: ${message}`);
    };
    if (shape.slice(1).reduce((a, b) => a * b, 1) < K!)
      fail(`'weight' expected (rows, at least ${K}), got ${formatShape(shape)}`);
    if (bias && bias.shape.reduce((a, b) => a * b, 1) !== shape[0])
      fail(`'bias' expected (${shape[0]}), got ${formatShape(bias.shape)}`);
    if (segments.length === 0) fail('no segments');
    for (const { start, count } of segments) {
      if (count < 1 || start + count > shape[0]!) fail(`rows ${start}..${start + count} of ${formatShape(shape)}`);
    }
  },
});
