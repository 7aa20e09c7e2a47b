/**
 * Depthwise causal convolution over time with bias and SiLU, on the channel segments that a submodel uses.
 *
 * `x` and `y` hold the segments side by side, each from a multiple of 16 columns on; pad columns of `y` are zero.
 * `weight` (channels, 1, K), `bias` and the state are indexed by the original channel. The state of one slot is the
 * window (K - 1, channels) of the last real inputs, oldest first: it stands for the steps before the first, and it
 * takes only the first `lengths[b]` steps of this call. Without a state the steps before the first are zero.
 */

import { MatMambaError } from '../../errors.ts';
import { type Segment, paddedColumns, segmentColumns } from '../../graph/graph.ts';
import { formatShape } from '../../tensor/tensor.ts';
import { conv1dSiluBackward } from '../conv1d-silu-backward/op.ts';
import { defineOp } from '../op.ts';

const MAX_TAPS = 4;

/** y[t] = silu(bias + sum_k weight[k] * x[t - K + 1 + k]), per channel (Dao & Gu 2024, section 7). */
export const conv1dSilu = defineOp({
  name: 'conv1d_silu',
  inputs: { x: '* C', weight: 'taps', bias: 'vector?', state: 'state?', slots: 'B?', lengths: 'B?' },
  outputs: { y: '* C' },
  attributes: { segments: [] as readonly Segment[], batch: 1, length: 1 },
  // Multiply-adds of the taps (4 unless the model says otherwise), and about 4 for SiLU.
  flops: ({ rows, C }) => rows! * C! * (2 * MAX_TAPS + 4),
  gradient({ inputs: { x, weight, bias }, grads: { y: dy }, attributes, into, accumulate }) {
    const operands = { x, weight, bias, dy, dWeight: accumulate('weight'), dBias: accumulate('bias') };
    return { x: conv1dSiluBackward(operands, attributes, { dx: into('x') }).dx };
  },
  check: ({ x, weight, bias, state, slots }, { segments, batch, length }, { axes }) => {
    const fail = (what: string, expected: string, got: string): never => {
      throw new MatMambaError('SHAPE', `conv1d_silu: '${what}' expected ${expected}, got ${got}`);
    };
    const [channels = 0, one, taps = 0] = weight!.shape;
    if (weight!.shape.length !== 3 || one !== 1 || taps < 2 || taps > MAX_TAPS) {
      fail('weight', `(channels, 1, 2..${MAX_TAPS})`, formatShape(weight!.shape));
    }
    const { total } = segmentColumns(segments);
    if (segments.some(({ start, count }) => start < 0 || count < 1 || start + count > channels)) {
      fail('segments', `parts of ${channels} channels`, JSON.stringify(segments));
    }
    if (total !== paddedColumns(axes.C!)) fail('x', `${total} columns with padding`, formatShape(x!.shape));
    if (batch * length !== axes.rows) fail('x', `${batch} x ${length} rows`, formatShape(x!.shape));
    if (bias && (bias.shape.length !== 1 || bias.shape[0] !== channels)) fail('bias', `(${channels})`, formatShape(bias.shape));
    if (state && (state.shape.length !== 2 || state.shape[0] !== taps - 1 || state.shape[1] !== channels)) {
      fail('state', `(${taps - 1}, ${channels})`, formatShape(state.shape));
    }
    if (axes.B !== undefined && axes.B !== batch) fail('slots', `(${batch})`, `(${axes.B})`);
    if (state && !slots) fail('slots', `(${batch}) with a state`, 'none');
  },
});
