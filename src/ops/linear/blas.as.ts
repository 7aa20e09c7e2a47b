/**
 * The product of many rows through the system's BLAS: each thread calls it for its own part of the grid. float32
 * weights are read where they lie, others become float32 rows in the thread's scratch, a block of panels at a time.
 */

import { keepLanes, padded } from '../as/simd.as';
import { BF16, F16, F32, LinearArguments, LinearSegment, PANEL, firstPanel, firstRow, panelsOf, segmentAt, xAt, yAt } from './arguments.as';
import { halfPanelToRows, int8PanelToRows } from './dequantise.as';

/** Row-major C[m][n] = A[m][k] B[n][k]^T. */
@external('env', 'blas_sgemm')
declare function blas_sgemm(m: i32, n: i32, k: i32, a: usize, lda: i32, b: usize, ldb: i32, c: usize, ldc: i32): void;

/** Computes this thread's part of the grid. */
export function linearBlas(address: usize, thread: i32, threads: i32): void {
  const args = changetype<LinearArguments>(address);
  if (thread >= args.rowParts * args.columnParts) return;
  const rowPart = thread / args.columnParts;
  const columnPart = thread % args.columnParts;
  const row = firstRow(args, rowPart);
  const rows = firstRow(args, rowPart + 1) - row;
  let first = firstPanel(args, columnPart);
  let last = firstPanel(args, columnPart + 1);
  if (rows <= 0) return;
  const scratch = args.scratch + <usize>thread * args.scratchBytes;
  for (let s = 0; s < args.segments; s++) {
    const segment = segmentAt(args, s);
    const panels = panelsOf(segment);
    const end = min(last, panels);
    for (let panel = max(first, 0); panel < end; panel += args.blockPanels) {
      const blockEnd = min(panel + args.blockPanels, end);
      const columns = min(blockEnd * PANEL, segment.count) - panel * PANEL;
      if (columns > 0) product(args, segment, panel, columns, row, rows, scratch);
      finish(args, segment, panel * PANEL, blockEnd * PANEL, row, rows);
    }
    first -= panels;
    last -= panels;
  }
}

function product(args: LinearArguments, segment: LinearSegment, panel: i32, columns: i32, row: i32, rows: i32, scratch: usize): void {
  const y = yAt(args, segment, row, panel);
  const weightRow = <usize>(panel * PANEL) * <usize>args.weightStride;
  if (args.dtype == F32) {
    blas_sgemm(rows, columns, args.k, xAt(args, row), args.xStride, segment.weight + (weightRow << 2), args.weightStride, y, args.yStride);
    return;
  }
  const rowBytes = <usize>args.k << 2;
  const panelBytes = <usize>(PANEL * args.weightStride);
  const scaleBytes = <usize>(PANEL * args.scaleGroups) << 2;
  let scales = segment.scales + <usize>panel * scaleBytes;
  let source = segment.weight + weightRow * (args.dtype == BF16 || args.dtype == F16 ? 2 : 1);
  for (let column = 0, target = scratch; column < columns; column += PANEL, target += 8 * rowBytes) {
    if (args.dtype == BF16) {
      halfPanelToRows<u16>(source, args.k, target, rowBytes);
      source += panelBytes << 1;
    } else if (args.dtype == F16) {
      halfPanelToRows<i16>(source, args.k, target, rowBytes);
      source += panelBytes << 1;
    } else {
      int8PanelToRows(source, scales, args.groupSize, args.k, target, rowBytes);
      source += panelBytes;
      scales += scaleBytes;
    }
  }
  blas_sgemm(rows, columns, args.k, xAt(args, row), args.xStride, scratch, args.k, y, args.yStride);
}

/** Adds the bias to columns `first .. end` of the segment and zeroes those that are padding. */
function finish(args: LinearArguments, segment: LinearSegment, first: i32, end: i32, row: i32, rows: i32): void {
  if (segment.bias == 0 && end <= segment.count) return;
  const from = segment.bias == 0 ? segment.count & ~3 : first;
  for (let r = row; r < row + rows; r++) {
    const y = args.y + (<usize>r * <usize>args.yStride + <usize>segment.column << 2);
    for (let column = max(from, first); column < end; column += 4) {
      const at = <usize>column << 2;
      let value = v128.load(y + at);
      if (segment.bias != 0) value = f32x4.add(value, v128.load(segment.bias + at));
      v128.store(y + at, keepLanes(value, segment.count - column));
    }
  }
}
