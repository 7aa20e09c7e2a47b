/** Table look-up: one row of a stored matrix for each id; ids are dealt to the threads. */

import { shareStart } from '../as/simd.as';
import { dequantiseRow } from '../linear/dequantise.as';

@unmanaged
class EmbeddingArguments {
  ids: usize;
  count: i32;
  y: usize;
  yStride: i32;
  weight: usize;
  scales: usize;
  /** Rows of the table. */
  rows: i32;
  /** Columns, rounded up to 16. */
  width: i32;
  dtype: i32;
  weightStride: i32;
  groupSize: i32;
  scaleGroups: i32;
}

/** y[t] = weight[ids[t]]; zeros for an id outside the table. */
export function embedding(address: usize, thread: i32, threads: i32): void {
  const args = changetype<EmbeddingArguments>(address);
  const end = shareStart(args.count, 1, thread + 1, threads);
  for (let t = shareStart(args.count, 1, thread, threads); t < end; t++) {
    const id = load<u32>(args.ids + (<usize>t << 2));
    const y = args.y + (<usize>t * <usize>args.yStride << 2);
    if (id < <u32>args.rows) {
      dequantiseRow(args.dtype, args.weight, args.weightStride, id, args.scales, args.groupSize, args.scaleGroups, args.width, y);
    } else {
      memory.fill(y, 0, <usize>args.width << 2);
    }
  }
}
