/** Picks the last tokens of each sequence, so that only their logits are computed. */

import { lastRowsBackward } from '../last-rows-backward/op.ts';
import { defineOp } from '../op.ts';

/** x: (B, T, D), lengths: (B) -> y: (B, count, D): rows lengths[b] - count .. lengths[b] - 1, or the last without lengths. */
export const lastRows = defineOp({
  name: 'last_rows',
  inputs: { x: 'B T D', lengths: 'B?' },
  outputs: { y: ({ axes: { B, D } }, { count }) => ({ shape: [B!, count, D!] }) },
  attributes: { count: 1 },
  flops: () => 0,
  gradient({ inputs: { x, lengths }, grads: { y: dy } }) {
    return { x: lastRowsBackward({ dy, lengths }, { length: x!.shape[1]! }).dx };
  },
});
