/**
 * Byte-pair merging over a ranked list of byte strings (Sennrich et al. 2016, on bytes as in GPT-2).
 *
 * Of all neighbouring pairs whose joined bytes are in the list, the one of lowest rank is merged, the leftmost of
 * equals first, until none is left. Candidates wait in a heap, so a piece of n bytes takes O(n log n): a megabyte of
 * one letter is a single piece, and rescanning it after every merge would take minutes.
 *
 * Byte strings are JavaScript strings of characters 0 to 255, which makes them cheap keys of a `Map`.
 */

import { NumberHeap } from './number-heap.ts';

/** Joins bytes to a string of characters 0 to 255. */
export function byteString(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return text;
}

const POSITIONS = 2 ** 31;
const NO_RANK = -1;
const KEPT_LENGTH = 2 ** 16;

export class BytePairMerger {
  readonly #ranks: ReadonlyMap<string, number>;
  readonly #longest: number;
  /** Byte offset where the part after (before) the part at an offset begins; `#rank` is that of the pair at it. */
  #next = new Int32Array(64);
  #previous = new Int32Array(64);
  #rank = new Int32Array(64);
  /** Candidates as `rank * 2^31 + offset`; entries that no longer hold are skipped when they come up. */
  readonly #heap = new NumberHeap();

  /** @param ranks every byte string of the vocabulary with its rank, which is also its token id. */
  constructor(ranks: ReadonlyMap<string, number>) {
    this.#ranks = ranks;
    let longest = 0;
    for (const key of ranks.keys()) longest = Math.max(longest, key.length);
    this.#longest = longest;
  }

  /** Appends the ids of one piece to `out`. Bytes that the vocabulary lacks on their own are left out. */
  encode(piece: string, out: number[]): void {
    const whole = piece.length <= this.#longest ? this.#ranks.get(piece) : undefined;
    if (whole !== undefined) {
      out.push(whole);
      return;
    }
    this.#merge(piece);
    for (let at = 0; at < piece.length; at = this.#next[at]!) {
      const id = this.#ranks.get(piece.slice(at, this.#next[at]));
      if (id !== undefined) out.push(id);
    }
    // A very long piece must not leave its buffers behind for good.
    if (piece.length > KEPT_LENGTH) this.#resize(64);
  }

  #resize(length: number): void {
    this.#next = new Int32Array(length);
    this.#previous = new Int32Array(length);
    this.#rank = new Int32Array(length);
  }

  #merge(piece: string): void {
    const { length } = piece;
    if (this.#next.length < length) this.#resize(length * 2);
    const next = this.#next;
    const previous = this.#previous;
    const rank = this.#rank;
    for (let at = 0; at < length; at++) {
      next[at] = at + 1;
      previous[at] = at - 1;
    }
    for (let at = 0; at < length; at++) this.#rankPair(piece, at);
    while (this.#heap.size > 0) {
      const entry = this.#heap.pop();
      const at = entry % POSITIONS;
      if (rank[at] !== (entry - at) / POSITIONS) continue;
      const swallowed = next[at]!;
      const after = next[swallowed]!;
      next[at] = after;
      rank[swallowed] = NO_RANK;
      if (after < length) previous[after] = at;
      this.#rankPair(piece, at);
      if (previous[at]! >= 0) this.#rankPair(piece, previous[at]!);
    }
  }

  /** Looks up the pair that begins at an offset and queues it. */
  #rankPair(piece: string, at: number): void {
    const middle = this.#next[at]!;
    const end = middle < piece.length ? this.#next[middle]! : Infinity;
    const found = end - at <= this.#longest ? this.#ranks.get(piece.slice(at, end)) : undefined;
    this.#rank[at] = found ?? NO_RANK;
    if (found !== undefined) this.#heap.push(found * POSITIONS + at);
  }
}
