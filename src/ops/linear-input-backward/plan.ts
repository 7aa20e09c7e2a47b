/** How the products of the backward pass are cut: segments that can be one, and threads in a grid. */

import type { Segment } from '../../graph/graph.ts';

/** Rows `start ..` of a weight, and where their columns begin in dy. */
export interface Piece extends Segment {
  readonly column: number;
}

/** The segments, neighbours joined where rows and columns both run on. */
export function joinedSegments(segments: readonly Segment[], columns: readonly number[]): readonly Piece[] {
  const pieces: Piece[] = [];
  for (const [i, { start, count }] of segments.entries()) {
    const last = pieces.at(-1);
    const column = columns[i]!;
    if (last && last.start + last.count === start && last.column + last.count === column)
      pieces[pieces.length - 1] = { ...last, count: last.count + count };
    else pieces.push({ start, count, column });
  }
  return pieces;
}

/** The grid of threads whose members have the least to do, as `work` says of the share of one of them. */
export function threadGrid(
  threads: number,
  work: (rowParts: number, columnParts: number) => number,
): { rowParts: number; columnParts: number } {
  let best = { rowParts: 1, columnParts: threads };
  let least = Infinity;
  for (let rowParts = 1; rowParts <= threads; rowParts++) {
    const columnParts = Math.floor(threads / rowParts);
    const share = work(rowParts, columnParts);
    if (share < least) [least, best] = [share, { rowParts, columnParts }];
  }
  return best;
}
