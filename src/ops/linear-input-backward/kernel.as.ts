/**
 * dx = dy . weight: rows of the weight become panels of 8 columns, [row][8], so packing only copies; tiles of 4 x 8
 * results run over a block of those rows, and dy is read where it lies, as in the forward product. Sums of later blocks
 * are added to dx.
 */

import { madd, padded, shareStart } from '../as/simd.as';
import { F32, PANEL, storePanel } from '../linear/arguments.as';
import { dequantiseRow } from '../linear/dequantise.as';

@unmanaged
export class InputBackwardArguments {
  dy: usize;
  dyStride: i32;
  dx: usize;
  dxStride: i32;
  rows: i32;
  width: i32;
  /** The whole matrix. */
  weight: usize;
  scales: usize;
  dtype: i32;
  weightStride: i32;
  groupSize: i32;
  scaleGroups: i32;
  /** Threads form a grid: so many shares of the rows, times so many of the columns. */
  rowParts: i32;
  columnParts: i32;
  /** Rows of the weight packed at once, rows of dy that stay in the cache, panels packed at once. */
  blockDepth: i32;
  blockRows: i32;
  blockPanels: i32;
  /** Every thread has `scratchBytes` of its own. */
  scratch: usize;
  scratchBytes: usize;
  /** How many `Piece`s follow. */
  pieces: i32;
}

/** Rows of the weight, and the first of their columns in dy. */
@unmanaged
export class Piece {
  start: i32;
  count: i32;
  column: i32;
}

@inline
export function pieceAt(pieces: usize, index: i32): Piece {
  return changetype<Piece>(pieces + <usize>index * offsetof<Piece>());
}

/** Computes this thread's part of the grid. */
export function linearInputBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<InputBackwardArguments>(address);
  if (thread >= args.rowParts * args.columnParts) return;
  const rowPart = thread / args.columnParts;
  const columnPart = thread % args.columnParts;
  const row = shareStart(args.rows, 4, rowPart, args.rowParts);
  const rowEnd = shareStart(args.rows, 4, rowPart + 1, args.rowParts);
  if (row >= rowEnd) return;
  const panels = padded(args.width) / PANEL;
  const last = shareStart(panels, 1, columnPart + 1, args.columnParts);
  const packed = args.scratch + <usize>thread * args.scratchBytes;
  for (let panel = shareStart(panels, 1, columnPart, args.columnParts); panel < last; panel += args.blockPanels) {
    const panelEnd = min(panel + args.blockPanels, last);
    let add = false;
    for (let p = 0; p < args.pieces; p++) {
      const piece = pieceAt(address + offsetof<InputBackwardArguments>(), p);
      const blocks = (piece.count + args.blockDepth - 1) / args.blockDepth;
      for (let block = 0; block < blocks; block++) {
        const first = shareStart(piece.count, 1, block, blocks);
        const depth = shareStart(piece.count, 1, block + 1, blocks) - first;
        pack(args, piece.start + first, depth, panel, panelEnd, packed);
        for (let r = row; r < rowEnd; r += args.blockRows) {
          multiply(args, piece.column + first, depth, panel, panelEnd, r, min(r + args.blockRows, rowEnd), packed, add);
        }
        add = true;
      }
    }
  }
}

/** Columns of `panel .. panelEnd` of weight rows `first ..`, as [panel][row][8]. */
function pack(args: InputBackwardArguments, first: i32, depth: i32, panel: i32, panelEnd: i32, packed: usize): void {
  const panelBytes = <usize>depth << 5;
  const row = packed + args.scratchBytes - (<usize>padded(args.width) << 2);
  for (let r = 0; r < depth; r++) {
    let source = row;
    if (args.dtype == F32) source = args.weight + (<usize>(first + r) * <usize>args.weightStride << 2);
    else dequantiseRow(args.dtype, args.weight, args.weightStride, first + r, args.scales, args.groupSize, args.scaleGroups, padded(args.width), row);
    source += <usize>panel << 5;
    let target = packed + (<usize>r << 5);
    for (let p = panel; p < panelEnd; p++, source += 32, target += panelBytes) {
      v128.store(target, v128.load(source));
      v128.store(target, v128.load(source, 16), 16);
    }
  }
}

/** Rows `row .. end` times the packed panels. */
function multiply(
  args: InputBackwardArguments,
  column: i32,
  depth: i32,
  panel: i32,
  panelEnd: i32,
  row: i32,
  end: i32,
  packed: usize,
  add: bool,
): void {
  const dy = args.dy + (<usize>column << 2);
  const panelBytes = <usize>depth << 5;
  for (let p = panel; p < panelEnd; p++, packed += panelBytes) {
    const valid = args.width - p * PANEL;
    const dx = args.dx + (<usize>(p * PANEL) << 2);
    if (valid <= 0) {
      for (let r = row; r < end; r++) storePanel(dx + (<usize>r * <usize>args.dxStride << 2), f32x4.splat(0), f32x4.splat(0), PANEL);
      continue;
    }
    for (let r = row; r < end; r += 4) {
      tile(
        dy + (<usize>r * <usize>args.dyStride << 2),
        <usize>args.dyStride << 2,
        dx + (<usize>r * <usize>args.dxStride << 2),
        <usize>args.dxStride << 2,
        end - r,
        valid,
        packed,
        packed + panelBytes,
        add,
      );
    }
  }
}

/** 4 rows times 8 columns; with fewer rows the last one is computed again and not stored. */
function tile(dy: usize, dyStep: usize, dx: usize, dxStep: usize, rows: i32, valid: i32, panel: usize, panelEnd: usize, add: bool): void {
  let a0 = dy;
  let a1 = rows > 1 ? a0 + dyStep : a0;
  let a2 = rows > 2 ? a1 + dyStep : a1;
  let a3 = rows > 3 ? a2 + dyStep : a2;
  let c00 = f32x4.splat(0);
  let c01 = f32x4.splat(0);
  let c10 = f32x4.splat(0);
  let c11 = f32x4.splat(0);
  let c20 = f32x4.splat(0);
  let c21 = f32x4.splat(0);
  let c30 = f32x4.splat(0);
  let c31 = f32x4.splat(0);
  while (panel < panelEnd) {
    const b0 = v128.load(panel);
    const b1 = v128.load(panel, 16);
    const g0 = v128.load32_splat(a0);
    c00 = madd(g0, b0, c00);
    c01 = madd(g0, b1, c01);
    const g1 = v128.load32_splat(a1);
    c10 = madd(g1, b0, c10);
    c11 = madd(g1, b1, c11);
    const g2 = v128.load32_splat(a2);
    c20 = madd(g2, b0, c20);
    c21 = madd(g2, b1, c21);
    const g3 = v128.load32_splat(a3);
    c30 = madd(g3, b0, c30);
    c31 = madd(g3, b1, c31);
    panel += 32;
    a0 += 4;
    a1 += 4;
    a2 += 4;
    a3 += 4;
  }
  storeSums(dx, c00, c01, valid, add);
  if (rows > 1) storeSums(dx + dxStep, c10, c11, valid, add);
  if (rows > 2) storeSums(dx + 2 * dxStep, c20, c21, valid, add);
  if (rows > 3) storeSums(dx + 3 * dxStep, c30, c31, valid, add);
}

/** Stores or adds eight results; columns from `valid` on get zeros. */
@inline
function storeSums(at: usize, low: v128, high: v128, valid: i32, add: bool): void {
  if (add) {
    low = f32x4.add(low, v128.load(at));
    high = f32x4.add(high, v128.load(at, 16));
  }
  storePanel(at, low, high, valid);
}
