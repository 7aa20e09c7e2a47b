/**
 * Trains a byte-level BPE tokenizer (Sennrich et al. 2016, on bytes as in GPT-2): words are counted, then the most
 * frequent neighbouring pair is merged, again and again.
 *
 * The choices are those of the Rust library `tokenizers`, so the same counts give the same file: the special token has
 * id 0, the 256 bytes follow in the order of their characters, of equally frequent pairs the one of lower ids is
 * merged first. (That library cannot do it from Node: its binding has no way to set the size of the vocabulary.)
 */

import { byteAlphabet } from '../text/byte-table.ts';
import { MatMambaError } from '../errors.ts';
import { WORD_PATTERN } from './byte-level.ts';
import { NumberHeap } from '../text/number-heap.ts';

export const END_TOKEN = '<|endoftext|>';
/** The end token and the bytes. */
export const LEAST_VOCAB = 257;
const PAIR = 2 ** 16;

/** Adds the words of a text to their counts. */
export function countWords(text: string, counts: Map<string, number>): void {
  for (const part of text.split(END_TOKEN)) {
    for (const word of part.match(WORD_PATTERN) ?? []) {
      const count = counts.get(word);
      // Encoding copies: a word cut out of a text would keep the whole text alive.
      counts.set(count === undefined ? Buffer.from(word).toString() : word, (count ?? 0) + 1);
    }
  }
}

/** All words as runs of ids in one array; merging shortens them in place. */
class Words {
  readonly #ids: Uint16Array;
  readonly #starts: Uint32Array;
  readonly #lengths: Uint32Array;
  readonly counts: Float64Array;

  constructor(counts: ReadonlyMap<string, number>, byteIds: Uint16Array) {
    const encoded = [...counts.keys()].map((word) => Buffer.from(word));
    this.#starts = new Uint32Array(encoded.length);
    this.#lengths = Uint32Array.from(encoded, ({ length }) => length);
    this.counts = Float64Array.from(counts.values());
    this.#ids = new Uint16Array(encoded.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const [i, bytes] of encoded.entries()) {
      this.#starts[i] = at;
      for (const byte of bytes) this.#ids[at++] = byteIds[byte]!;
    }
  }

  get size(): number {
    return this.counts.length;
  }

  /** Calls back for every neighbouring pair of a word. */
  pairs(word: number, onPair: (pair: number) => void): void {
    const start = this.#starts[word]!;
    for (let at = start + 1; at < start + this.#lengths[word]!; at++) onPair(this.#ids[at - 1]! * PAIR + this.#ids[at]!);
  }

  /** Merges a pair from left to right and reports what pairs that takes away and brings, as in the library. */
  merge(word: number, left: number, right: number, joined: number, onChange: (pair: number, by: number) => void): void {
    const ids = this.#ids;
    const start = this.#starts[word]!;
    let end = start + this.#lengths[word]!;
    for (let at = start; at + 1 < end; at++) {
      if (ids[at] !== left || ids[at + 1] !== right) continue;
      if (at > start) {
        onChange(ids[at - 1]! * PAIR + left, -1);
        onChange(ids[at - 1]! * PAIR + joined, 1);
      }
      ids[at] = joined;
      ids.copyWithin(at + 1, at + 2, end);
      end--;
      if (at + 1 < end) {
        onChange(right * PAIR + ids[at + 1]!, -1);
        onChange(joined * PAIR + ids[at + 1]!, 1);
      }
    }
    this.#lengths[word] = end - start;
  }
}

/**
 * The `tokenizer.json` of a byte-level BPE with `vocabSize` ids, learned from the counts of words.
 * @throws OPTION for a size that cannot be; FORMAT when the text is too small for so many ids
 */
export function trainBytePairs(counts: ReadonlyMap<string, number>, vocabSize: number): string {
  if (!Number.isInteger(vocabSize) || vocabSize < LEAST_VOCAB || vocabSize > PAIR) {
    throw new MatMambaError('OPTION', `a vocabulary of ${vocabSize} ids: expected ${LEAST_VOCAB} to ${PAIR}`);
  }
  const alphabet = byteAlphabet();
  const tokens = [END_TOKEN, ...[...alphabet].sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!)];
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const words = new Words(
    counts,
    Uint16Array.from(alphabet, (character) => ids.get(character)!),
  );
  const merges: [string, string][] = [];

  const pairCounts = new Map<number, number>();
  /** The words that a pair was seen in; a word may have lost it since, or stand there twice. */
  const places = new Map<number, number[]>();
  const change = (word: number, pair: number, by: number): void => {
    pairCounts.set(pair, (pairCounts.get(pair) ?? 0) + by * words.counts[word]!);
    if (by < 0) return;
    const known = places.get(pair);
    if (!known) places.set(pair, [word]);
    else if (known.at(-1) !== word) known.push(word);
  };
  for (let word = 0; word < words.size; word++) words.pairs(word, (pair) => change(word, pair, 1));
  const queue = new PairQueue();
  for (const [pair, count] of pairCounts) queue.push(pair, count);

  while (tokens.length < vocabSize) {
    const pair = queue.pop(pairCounts);
    if (pair === undefined) break;
    const [left, right] = [Math.floor(pair / PAIR), pair % PAIR];
    const text = tokens[left]! + tokens[right]!;
    merges.push([tokens[left]!, tokens[right]!]);
    const joined = ids.get(text) ?? tokens.length;
    if (joined === tokens.length) {
      ids.set(text, joined);
      tokens.push(text);
    }
    const found = places.get(pair)!;
    places.delete(pair);
    const grown = new Set<number>();
    for (const word of new Set(found)) {
      words.merge(word, left, right, joined, (changed, by) => {
        change(word, changed, by);
        if (by > 0) grown.add(changed);
      });
    }
    pairCounts.delete(pair);
    grown.delete(pair);
    for (const changed of grown) queue.push(changed, pairCounts.get(changed)!);
  }
  if (tokens.length < vocabSize) {
    throw new MatMambaError(
      'FORMAT',
      `the text gives ${tokens.length} tokens, not ${vocabSize}: no pair of tokens is left to merge`,
      {
        hint: `ask for at most --train-bpe ${tokens.length}, or give more text`,
      },
    );
  }
  return tokenizerJson(tokens, merges);
}

/** Pairs by count, then by ids; counts are looked up again when a pair comes up, as they may have fallen. */
class PairQueue {
  /** One list of pairs for each count that is queued. */
  readonly #pairs = new Map<number, NumberHeap>();
  readonly #counts = new NumberHeap();

  push(pair: number, count: number): void {
    if (count < 1) return;
    let pairs = this.#pairs.get(count);
    if (!pairs) {
      pairs = new NumberHeap();
      this.#pairs.set(count, pairs);
      this.#counts.push(-count);
    }
    pairs.push(pair);
  }

  pop(current: ReadonlyMap<number, number>): number | undefined {
    while (this.#counts.size > 0) {
      const count = -this.#counts.pop();
      const pairs = this.#pairs.get(count)!;
      while (pairs.size > 0) {
        const pair = pairs.pop();
        const now = current.get(pair) ?? 0;
        if (now === count) {
          if (pairs.size > 0) this.#counts.push(-count);
          else this.#pairs.delete(count);
          return pair;
        }
        if (now < count) this.push(pair, now);
      }
      this.#pairs.delete(count);
    }
    return undefined;
  }
}

function tokenizerJson(tokens: readonly string[], merges: readonly (readonly [string, string])[]): string {
  const special = {
    id: 0,
    content: END_TOKEN,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  };
  const byteLevel = (prefix: boolean): object => ({
    type: 'ByteLevel',
    add_prefix_space: prefix,
    trim_offsets: true,
    use_regex: true,
  });
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [special],
    normalizer: null,
    pre_tokenizer: byteLevel(false),
    post_processor: null,
    decoder: byteLevel(true),
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
  return `${JSON.stringify(json, null, 2)}\n`;
}
