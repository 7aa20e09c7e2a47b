/** The gradient of `conv1d_silu` without a carried window. */

import { type Segment, paddedColumns, segmentColumns } from '../../graph/graph.ts';
import { MatMambaError } from '../../errors.ts';
import { formatShape } from '../../tensor/tensor.ts';
import { defineOp } from '../op.ts';

const MAX_TAPS = 4;

/**
 * With g[t] = dy[t] * silu'(bias + sum_k weight[k] * x[t - K + 1 + k]): dx[t] = sum_k weight[k] * g[t + K - 1 - k];
 * dWeight[k] += sum of g[t] * x[t - K + 1 + k], dBias += sum of g[t], on the segments' channels. Pad columns of dx are 0.
 */
export const conv1dSiluBackward = defineOp({
  name: 'conv1d_silu_backward',
  inputs: { x: '* C', weight: 'taps', bias: 'vector?', dy: '* C', dWeight: 'taps?', dBias: 'vector?' },
  outputs: { dx: '* C' },
  attributes: { segments: [] as readonly Segment[], batch: 1, length: 1 },
  // Three sums of taps, and about 12 for the slope of SiLU.
  flops: ({ rows, C }) => rows! * C! * (3 * 2 * MAX_TAPS + 12),
  check: ({ x, weight, dWeight, dBias }, { segments, batch, length }, { axes }) => {
    const fail = (what: string, expected: string, got: string): never => {
      throw new MatMambaError('SHAPE', `conv1d_silu_backward: '${what}' expected ${expected}, got ${got}`);
    };
    const [channels = 0, , taps = 0] = weight!.shape;
    if (taps < 2 || taps > MAX_TAPS) fail('weight', `(channels, 1, 2..${MAX_TAPS})`, formatShape(weight!.shape));
    if (segmentColumns(segments).total !== paddedColumns(axes.C!))
      fail('x', 'the columns of the segments', formatShape(x!.shape));
    if (batch * length !== axes.rows) fail('x', `${batch} x ${length} rows`, formatShape(x!.shape));
    if (dWeight && dWeight.shape.join() !== weight!.shape.join())
      fail('dWeight', formatShape(weight!.shape), formatShape(dWeight.shape));
    if (dBias && dBias.shape[0] !== channels) fail('dBias', `(${channels})`, formatShape(dBias.shape));
  },
});
