/**
 * dWeight += dy^T . x: a block of rows of x becomes panels of 8 columns, of dy groups of 4; both are copies. Tiles run
 * over the depth of the block and are then added to dWeight. Threads own rows and columns of dWeight and sum in the
 * order of the rows, so results repeat bit for bit.
 *
 * GFLOP/s of one core with 1024 rows, in_proj and out_proj of the 130M shape: blocks of 128, 256, 384 and 512 rows
 * 50 and 50, of 768 49 and 49; 512 touch dWeight least. Packing dy row by row cost the narrow layers 10%, see `tile.as.ts`.
 */

import { padded, shareStart } from '../as/simd.as';
import { PANEL } from '../linear/arguments.as';
import { Piece, pieceAt } from '../linear-input-backward/kernel.as';
import { GROUP, packPanels, tile } from '../linear-input-backward/tile.as';

@unmanaged
export class WeightBackwardArguments {
  x: usize;
  xStride: i32;
  dy: usize;
  dyStride: i32;
  rows: i32;
  width: i32;
  /** The whole matrix. */
  dWeight: usize;
  dWeightStride: i32;
  /** Threads form a grid: so many shares of the pieces' rows, times so many of the columns. */
  rowParts: i32;
  columnParts: i32;
  /** Rows of x and dy, groups of dy's columns and panels of x's that are packed at once. */
  blockDepth: i32;
  blockGroups: i32;
  blockPanels: i32;
  /** Every thread has `scratchBytes` of its own. */
  scratch: usize;
  scratchBytes: usize;
  /** How many `Piece`s follow. */
  pieces: i32;
}

@inline
export function groupsOf(piece: Piece): i32 {
  return (piece.count + GROUP - 1) / GROUP;
}

/** First group, counted over all pieces, of the share `part` of the rows. */
export function firstGroup(args: WeightBackwardArguments, part: i32): i32 {
  let groups = 0;
  for (let p = 0; p < args.pieces; p++) groups += groupsOf(pieceAt(changetype<usize>(args) + offsetof<WeightBackwardArguments>(), p));
  return shareStart(groups, 1, part, args.rowParts);
}

/** Adds this thread's part of the grid. */
export function linearWeightBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<WeightBackwardArguments>(address);
  if (thread >= args.rowParts * args.columnParts) return;
  const rowPart = thread / args.columnParts;
  const columnPart = thread % args.columnParts;
  const panels = padded(args.width) / PANEL;
  const lastPanel = shareStart(panels, 1, columnPart + 1, args.columnParts);
  const group = firstGroup(args, rowPart);
  const groupEnd = firstGroup(args, rowPart + 1);
  const packedX = args.scratch + <usize>thread * args.scratchBytes;
  const packedDy = packedX + (<usize>args.blockDepth * <usize>args.blockPanels << 5);
  for (let row = 0; row < args.rows; row += args.blockDepth) {
    const depth = min(args.blockDepth, args.rows - row);
    for (let panel = shareStart(panels, 1, columnPart, args.columnParts); panel < lastPanel; panel += args.blockPanels) {
      const panelEnd = min(panel + args.blockPanels, lastPanel);
      const x = args.x + (<usize>row * <usize>args.xStride << 2) + (<usize>panel << 5);
      packPanels(x, <usize>args.xStride << 2, depth, panelEnd - panel, packedX, <usize>depth << 5);
      let first = group;
      let last = groupEnd;
      for (let p = 0; p < args.pieces; p++) {
        const piece = pieceAt(address + offsetof<WeightBackwardArguments>(), p);
        const groups = groupsOf(piece);
        const end = min(last, groups);
        for (let g = max(first, 0); g < end; g += args.blockGroups) {
          const blockEnd = min(g + args.blockGroups, end);
          packDy(args, piece, row, depth, g, blockEnd, packedDy);
          multiply(args, piece, depth, panel, panelEnd, packedX, g, blockEnd, packedDy);
        }
        first -= groups;
        last -= groups;
      }
    }
  }
}

/** Columns of groups `group .. groupEnd` of rows of dy, as [group][row][4]; what lies past the piece is not stored later. */
function packDy(args: WeightBackwardArguments, piece: Piece, row: i32, depth: i32, group: i32, groupEnd: i32, target: usize): void {
  const groupBytes = <usize>depth << 4;
  const step = <usize>args.dyStride << 2;
  let source = args.dy + <usize>row * step + (<usize>piece.column << 2) + (<usize>group << 4);
  let r = 0;
  for (; r + 4 <= depth; r += 4, source += 4 * step, target += 64) {
    let from = source;
    let to = target;
    for (let g = group; g < groupEnd; g++, from += 16, to += groupBytes) {
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from + step), 16);
      v128.store(to, v128.load(from + 2 * step), 32);
      v128.store(to, v128.load(from + 3 * step), 48);
    }
  }
  for (; r < depth; r++, source += step, target += 16) {
    let from = source;
    let to = target;
    for (let g = group; g < groupEnd; g++, from += 16, to += groupBytes) v128.store(to, v128.load(from));
  }
}

/** All tiles of the packed groups and panels. */
function multiply(
  args: WeightBackwardArguments,
  piece: Piece,
  depth: i32,
  panel: i32,
  panelEnd: i32,
  packedX: usize,
  group: i32,
  groupEnd: i32,
  packedDy: usize,
): void {
  const step = <usize>args.dWeightStride << 2;
  const panelBytes = <usize>depth << 5;
  const groupBytes = <usize>depth << 4;
  for (let p = panel; p < panelEnd; p++, packedX += panelBytes) {
    let target = args.dWeight + <usize>(piece.start + group * GROUP) * step + (<usize>p << 5);
    let dy = packedDy;
    for (let g = group; g < groupEnd; g++, dy += groupBytes, target += GROUP * step) {
      tile(dy, packedX, packedX + panelBytes, target, step, piece.count - g * GROUP, PANEL, true);
    }
  }
}

@unmanaged
class BiasBackwardArguments {
  dy: usize;
  dyStride: i32;
  rows: i32;
  dBias: usize;
  /** How many `Piece`s follow. */
  pieces: i32;
}

/** Columns of dy that are summed at once, in registers. */
const BIAS_COLUMNS: i32 = 16;

/** dBias += sums of the columns of dy; columns are dealt to the threads. */
export function linearBiasBackward(address: usize, thread: i32, threads: i32): void {
  const args = changetype<BiasBackwardArguments>(address);
  for (let p = 0; p < args.pieces; p++) {
    const piece = pieceAt(address + offsetof<BiasBackwardArguments>(), p);
    const end = shareStart(piece.count, BIAS_COLUMNS, thread + 1, threads);
    for (let i = shareStart(piece.count, BIAS_COLUMNS, thread, threads); i < end; i += BIAS_COLUMNS) {
      sumColumns(args, args.dy + (<usize>(piece.column + i) << 2), args.dBias + (<usize>(piece.start + i) << 2), piece.count - i);
    }
  }
}

function sumColumns(args: BiasBackwardArguments, dy: usize, target: usize, columns: i32): void {
  let s0 = f32x4.splat(0);
  let s1 = f32x4.splat(0);
  let s2 = f32x4.splat(0);
  let s3 = f32x4.splat(0);
  const step = <usize>args.dyStride << 2;
  for (let row = 0; row < args.rows; row++, dy += step) {
    s0 = f32x4.add(s0, v128.load(dy));
    s1 = f32x4.add(s1, v128.load(dy, 16));
    s2 = f32x4.add(s2, v128.load(dy, 32));
    s3 = f32x4.add(s3, v128.load(dy, 48));
  }
  addLanes(target, s0, columns);
  addLanes(target + 16, s1, columns - 4);
  addLanes(target + 32, s2, columns - 8);
  addLanes(target + 48, s3, columns - 12);
}

/** Adds the first `count` lanes and touches nothing behind them, which another thread may be adding to. */
function addLanes(target: usize, sums: v128, count: i32): void {
  if (count >= 4) {
    v128.store(target, f32x4.add(v128.load(target), sums));
    return;
  }
  if (count > 0) store<f32>(target, load<f32>(target) + f32x4.extract_lane(sums, 0));
  if (count > 1) store<f32>(target, load<f32>(target, 4) + f32x4.extract_lane(sums, 1), 4);
  if (count > 2) store<f32>(target, load<f32>(target, 8) + f32x4.extract_lane(sums, 2), 8);
}
