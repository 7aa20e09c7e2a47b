/** dx = dy . weight through the system's BLAS: each thread calls it for its own part of the grid, float32 weights only. */

import { keepLanes, padded, shareStart } from '../as/simd.as';
import { InputBackwardArguments, pieceAt } from './kernel.as';

/** Row-major C[m][n] = op(A)[m][k] op(B)[k][n] + beta C; op transposes where the flag is 1. */
@external('env', 'blas_gemm')
export declare function blas_gemm(transA: i32, transB: i32, m: i32, n: i32, k: i32, a: usize, lda: i32, b: usize, ldb: i32, beta: f32, c: usize, ldc: i32): void;

/** Computes this thread's part of the grid. */
export function linearInputBackwardBlas(address: usize, thread: i32, threads: i32): void {
  const args = changetype<InputBackwardArguments>(address);
  if (thread >= args.rowParts * args.columnParts) return;
  const rowPart = thread / args.columnParts;
  const columnPart = thread % args.columnParts;
  const row = shareStart(args.rows, 4, rowPart, args.rowParts);
  const rows = shareStart(args.rows, 4, rowPart + 1, args.rowParts) - row;
  const first = shareStart(padded(args.width), 16, columnPart, args.columnParts);
  const end = shareStart(padded(args.width), 16, columnPart + 1, args.columnParts);
  const columns = min(end, args.width) - first;
  if (rows <= 0 || columns <= 0) return;
  const dx = args.dx + (<usize>row * <usize>args.dxStride + <usize>first << 2);
  const dy = args.dy + (<usize>row * <usize>args.dyStride << 2);
  for (let p = 0; p < args.pieces; p++) {
    const piece = pieceAt(address + offsetof<InputBackwardArguments>(), p);
    const weight = args.weight + (<usize>piece.start * <usize>args.weightStride + <usize>first << 2);
    blas_gemm(0, 0, rows, columns, piece.count, dy + (<usize>piece.column << 2), args.dyStride, weight, args.weightStride, p == 0 ? 0 : 1, dx, args.dxStride);
  }
  if (end <= args.width) return;
  for (let r = 0; r < rows; r++) {
    const at = dx + (<usize>r * <usize>args.dxStride << 2);
    for (let column = columns & ~3; column < end - first; column += 4) {
      const place = at + (<usize>column << 2);
      v128.store(place, keepLanes(v128.load(place), columns - column));
    }
  }
}
