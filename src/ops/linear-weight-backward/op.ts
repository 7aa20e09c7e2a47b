/** The gradients of `linear` with respect to its weight and bias. */

import { MatMambaError } from '../../errors.ts';
import { formatShape, sizeOf } from '../../tensor/tensor.ts';
import { NO_SEGMENTS, checkSegments, rowsIn } from '../linear-input-backward/op.ts';
import { defineOp } from '../op.ts';

/**
 * dWeight[s.start + i, :K] += sum over t of dy[t, column(s) + i] * x[t, :K] and dBias[s.start + i] += sum over t of
 * dy[t, column(s) + i], for every segment s and i < s.count; nothing else of the two changes.
 * x: (*, K), dy: (*, linearWidth(segments)), dWeight: (R, >= K), dBias: (R).
 * @throws SHAPE
 */
export const linearWeightBackward = defineOp({
  name: 'linear_weight_backward',
  inputs: { x: '* K', dy: '* Y', dWeight: 'matrix?', dBias: 'vector?' },
  outputs: {},
  attributes: { segments: NO_SEGMENTS },
  flops: ({ rows, K }, { segments }) => 2 * rows! * K! * rowsIn(segments),
  check({ dy, dWeight, dBias }, { segments }, { axes: { K } }) {
    checkSegments('linear_weight_backward', dy!, dWeight, segments, K!);
    const needed = Math.max(...segments.map(({ start, count }) => start + count));
    if (dBias && sizeOf(dBias.shape) < needed)
      throw new MatMambaError(
        'SHAPE',
        `linear_weight_backward: 'dBias' expected at least (${needed}), got ${formatShape(dBias.shape)}`,
      );
  },
});
