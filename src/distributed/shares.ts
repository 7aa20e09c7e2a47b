/**
 * Who works on what: parts of a batch, of a data set or of a list of files, disjoint over ranks and together the whole.
 * A share depends only on (what there is, rank, size), so a job that resumes on another number of ranks reads on where
 * it was: the data position is counted in the global batch.
 */

import { MatMambaError } from '../errors.ts';

/** Half-open range of indices. */
export interface Share {
  readonly start: number;
  readonly end: number;
}

/** The rank and size of a group; a `Communicator` fits. */
export interface Place {
  readonly rank: number;
  readonly size: number;
}

/** @throws OPTION unless the rank is one of the group */
function checkPlace({ rank, size }: Place): void {
  if (Number.isInteger(rank) && Number.isInteger(size) && rank >= 0 && rank < size) return;
  throw new MatMambaError('OPTION', `rank ${rank} is none of ${size} ranks`);
}

/** Contiguous share of `count` items; shares differ by at most one item. @throws OPTION */
export function shareOf(count: number, place: Place): Share {
  checkPlace(place);
  const { rank, size } = place;
  return { start: Math.floor((count * rank) / size), end: Math.floor((count * (rank + 1)) / size) };
}

/**
 * Rows of the global batch that this rank computes: equally many on every rank, so that a mean over ranks is the mean
 * over the batch.
 * @throws OPTION when the batch does not divide
 */
export function batchRows(globalBatch: number, place: Place): Share {
  if (globalBatch % place.size !== 0) {
    const below = Math.floor(globalBatch / place.size) * place.size;
    throw new MatMambaError('OPTION', `a batch of ${globalBatch} does not divide among ${place.size} processes`, {
      hint: `use a batch of ${below > 0 ? `${below} or ` : ''}${below + place.size}, or a number of processes that divides ${globalBatch}`,
    });
  }
  return shareOf(globalBatch, place);
}

/**
 * Indices of the files that this rank prepares, balanced by size: largest first, each to the rank with the fewest bytes.
 * @param sizes bytes of every file, the same on all ranks
 * @throws OPTION
 */
export function fileIndices(sizes: readonly number[], place: Place): number[] {
  checkPlace(place);
  const loads = new Float64Array(place.size);
  const largestFirst = sizes.map((_, i) => i).sort((a, b) => sizes[b]! - sizes[a]! || a - b);
  const mine: number[] = [];
  for (const i of largestFirst) {
    const lightest = loads.indexOf(Math.min(...loads));
    // An empty file is a file too: it must not pile up on one rank.
    loads[lightest] = loads[lightest]! + Math.max(1, sizes[i]!);
    if (lightest === place.rank) mine.push(i);
  }
  return mine.sort((a, b) => a - b);
}
