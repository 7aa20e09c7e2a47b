/**
 * Byte-pair merging by a list of merges (Sennrich et al. 2016): of all neighbouring pairs that are in the list, the
 * one of lowest rank is merged, the leftmost of equals first, until none is left.
 *
 * Candidates wait in a heap, so a word of n bytes takes O(n log n) and a megabyte of one letter is no trap.
 */

import { byteAlphabet } from '../text/byte-table.ts';
import { NumberHeap } from '../text/number-heap.ts';
import type { ByteLevelTokenizer } from './byte-level.ts';

/** Ids fit 16 bits here, so a pair is one number. */
const PAIR = 2 ** 16;
const POSITIONS = 2 ** 28;

export class PairMerger {
  /** `a * 2^16 + b` to `rank * 2^16 + id of the pair`. */
  readonly #merges = new Map<number, number>();
  readonly #byteIds: Int32Array;
  readonly #whole: ReadonlyMap<string, number> | undefined;
  readonly #heap = new NumberHeap();

  /** @throws RangeError when a merge names a token that the vocabulary lacks */
  constructor({ vocab, merges, wholeWords }: ByteLevelTokenizer) {
    const alphabet = byteAlphabet();
    this.#byteIds = Int32Array.from(alphabet, (character) => vocab[character]!);
    for (const [rank, [left, right]] of merges.entries()) {
      const [a, b, joined] = [vocab[left], vocab[right], vocab[left + right]];
      if (a === undefined || b === undefined || joined === undefined)
        throw new RangeError(`merge ${rank} (${left} ${right}) is not in the vocabulary`);
      // Of a pair listed twice the last counts, as in the library.
      this.#merges.set(a * PAIR + b, rank * PAIR + joined);
    }
    if (!wholeWords) return;
    const byteOf = new Map(alphabet.map((character, byte) => [character, String.fromCharCode(byte)]));
    this.#whole = new Map(
      Object.entries(vocab).map(([token, id]) => [
        Array.from(token, (character) => byteOf.get(character) ?? character).join(''),
        id,
      ]),
    );
  }

  /** Appends the ids of a word, given as its bytes in a string of characters 0 to 255. */
  encode(word: string, out: number[]): void {
    const { length } = word;
    const whole = this.#whole?.get(word);
    if (whole !== undefined || length < 2) {
      if (length > 0) out.push(whole ?? this.#byteIds[word.charCodeAt(0)]!);
      return;
    }
    const id = Int32Array.from({ length }, (_, at) => this.#byteIds[word.charCodeAt(at)]!);
    const next = Int32Array.from({ length }, (_, at) => at + 1);
    const previous = Int32Array.from({ length }, (_, at) => at - 1);
    const heap = this.#heap;
    /** Queues the merge of the part at an offset with the part after it. */
    const queue = (at: number): void => {
      const after = next[at]!;
      if (after >= length) return;
      const merge = this.#merges.get(id[at]! * PAIR + id[after]!);
      if (merge !== undefined) heap.push(Math.floor(merge / PAIR) * POSITIONS + at);
    };
    for (let at = 0; at < length; at++) queue(at);
    while (heap.size > 0) {
      const entry = heap.pop();
      const at = entry % POSITIONS;
      const after = next[at]!;
      // Either side may have been merged since: then the pair at this place has another rank or none.
      if (id[at]! < 0 || after >= length) continue;
      const merge = this.#merges.get(id[at]! * PAIR + id[after]!);
      if (merge === undefined || Math.floor(merge / PAIR) !== (entry - at) / POSITIONS) continue;
      id[at] = merge % PAIR;
      id[after] = -1;
      next[at] = next[after]!;
      const following = next[at];
      if (following < length) previous[following] = at;
      queue(at);
      if (previous[at]! >= 0) queue(previous[at]!);
    }
    for (let at = 0; at < length; at = next[at]!) out.push(id[at]!);
  }
}
