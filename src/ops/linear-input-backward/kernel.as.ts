/**
 * dx = dy . weight: a block of the weight's rows becomes panels of 8 columns, which only copies, and rows of dy become
 * groups of 4; tiles run over the depth of the block, and the sums of later blocks are added to dx. Blocks of 128 to
 * 768 rows of the weight, and of 32 to 256 rows of dy, were within 3% of each other.
 */

import { padded, shareStart } from '../as/simd.as';
import { F32, PANEL } from '../linear/arguments.as';
import { dequantiseRow, transpose } from '../linear/dequantise.as';
import { GROUP, packPanels, tile } from './tile.as';

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
  /** Rows of the weight, rows of dy and panels of the weight that are packed at once. */
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
  const packedDy = packed + (<usize>args.blockDepth * <usize>args.blockPanels << 5);
  // One row of a weight that is not float32.
  const spare = packedDy + (<usize>args.blockDepth * <usize>args.blockRows << 2);
  for (let panel = shareStart(panels, 1, columnPart, args.columnParts); panel < last; panel += args.blockPanels) {
    const panelEnd = min(panel + args.blockPanels, last);
    let add = false;
    for (let p = 0; p < args.pieces; p++) {
      const piece = pieceAt(address + offsetof<InputBackwardArguments>(), p);
      const blocks = (piece.count + args.blockDepth - 1) / args.blockDepth;
      for (let block = 0; block < blocks; block++) {
        const first = shareStart(piece.count, 1, block, blocks);
        const depth = shareStart(piece.count, 1, block + 1, blocks) - first;
        packWeight(args, piece.start + first, depth, panel, panelEnd, packed, spare);
        for (let r = row; r < rowEnd; r += args.blockRows) {
          const end = min(r + args.blockRows, rowEnd);
          packDy(args, piece.column + first, depth, r, end, packedDy);
          multiply(args, depth, packedDy, r, end, packed, panel, panelEnd, add);
        }
        add = true;
      }
    }
  }
}

/** Columns of `panel .. panelEnd` of weight rows `first ..`, as [panel][row][8]. */
function packWeight(args: InputBackwardArguments, first: i32, depth: i32, panel: i32, panelEnd: i32, packed: usize, spare: usize): void {
  const panelBytes = <usize>depth << 5;
  const offset = <usize>panel << 5;
  if (args.dtype == F32) {
    const step = <usize>args.weightStride << 2;
    packPanels(args.weight + <usize>first * step + offset, step, depth, panelEnd - panel, packed, panelBytes);
    return;
  }
  for (let r = 0; r < depth; r++) {
    dequantiseRow(args.dtype, args.weight, args.weightStride, first + r, args.scales, args.groupSize, args.scaleGroups, padded(args.width), spare);
    packPanels(spare + offset, 0, 1, panelEnd - panel, packed + (<usize>r << 5), panelBytes);
  }
}

/** Columns `column ..` of rows `row .. end` of dy, as [group of 4 rows][column][4]; a last group repeats its last row. */
function packDy(args: InputBackwardArguments, column: i32, depth: i32, row: i32, end: i32, target: usize): void {
  const step = <usize>args.dyStride << 2;
  for (; row < end; row += GROUP) {
    const last = <usize>(end - 1 - row);
    let a = args.dy + <usize>row * step + (<usize>column << 2);
    let b = a + min<usize>(1, last) * step;
    let c = a + min<usize>(2, last) * step;
    let d = a + min<usize>(3, last) * step;
    let i = 0;
    for (; i + 4 <= depth; i += 4, target += 64) {
      transpose(v128.load(a), v128.load(b), v128.load(c), v128.load(d), target, 16);
      a += 16;
      b += 16;
      c += 16;
      d += 16;
    }
    for (; i < depth; i++, target += 16) {
      store<f32>(target, load<f32>(a));
      store<f32>(target, load<f32>(b), 4);
      store<f32>(target, load<f32>(c), 8);
      store<f32>(target, load<f32>(d), 12);
      a += 4;
      b += 4;
      c += 4;
      d += 4;
    }
  }
}

/** Rows `row .. end` of dy times panels `panel .. panelEnd`, both packed. */
function multiply(
  args: InputBackwardArguments,
  depth: i32,
  packedDy: usize,
  row: i32,
  end: i32,
  packed: usize,
  panel: i32,
  panelEnd: i32,
  add: bool,
): void {
  const panelBytes = <usize>depth << 5;
  const groupBytes = <usize>depth << 4;
  const step = <usize>args.dxStride << 2;
  for (let p = panel; p < panelEnd; p++, packed += panelBytes) {
    const valid = max(0, args.width - p * PANEL);
    let dx = args.dx + <usize>row * step + (<usize>p << 5);
    let group = packedDy;
    for (let r = row; r < end; r += GROUP, dx += GROUP * step, group += groupBytes) {
      tile(group, packed, packed + panelBytes, dx, step, end - r, valid, add);
    }
  }
}
