/** dWeight += dy^T . x through the system's BLAS: each thread calls it for its own rows and columns of dWeight. */

import { padded, shareStart } from '../as/simd.as';
import { pieceAt } from '../linear-input-backward/kernel.as';
import { blas_gemm } from '../linear-input-backward/blas.as';
import { WeightBackwardArguments, firstGroup, groupsOf } from './kernel.as';

/** Adds this thread's part of the grid. */
export function linearWeightBackwardBlas(address: usize, thread: i32, threads: i32): void {
  const args = changetype<WeightBackwardArguments>(address);
  if (thread >= args.rowParts * args.columnParts) return;
  const rowPart = thread / args.columnParts;
  const columnPart = thread % args.columnParts;
  const column = shareStart(padded(args.width), 16, columnPart, args.columnParts);
  const columns = min(shareStart(padded(args.width), 16, columnPart + 1, args.columnParts), args.width) - column;
  if (columns <= 0) return;
  let first = firstGroup(args, rowPart);
  let last = firstGroup(args, rowPart + 1);
  for (let p = 0; p < args.pieces; p++) {
    const piece = pieceAt(address + offsetof<WeightBackwardArguments>(), p);
    const groups = groupsOf(piece);
    const from = max(first, 0) * 4;
    const count = min(min(last, groups) * 4, piece.count) - from;
    first -= groups;
    last -= groups;
    if (count <= 0) continue;
    const dy = args.dy + (<usize>(piece.column + from) << 2);
    const target = args.dWeight + (<usize>(piece.start + from) * <usize>args.dWeightStride + <usize>column << 2);
    blas_gemm(1, 0, count, columns, args.rows, dy, args.dyStride, args.x + (<usize>column << 2), args.xStride, 1, target, args.dWeightStride);
  }
}
