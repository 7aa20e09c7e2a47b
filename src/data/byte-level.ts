/**
 * A fast encoder for byte-level BPE with GPT-2's splitting pattern: the text is cut into words by one regular
 * expression, and the ids of every word seen before come from a table. Natural text repeats its words, so merging,
 * the slow part, runs for a few words in a hundred.
 *
 * Invariants: the ids are those of the tokenizer's own library (the tests compare them); the memory of the table is
 * bounded, and the result never depends on what the table holds.
 */

import { byteAlphabet } from '../text/byte-table.ts';

/** The pattern of GPT-2 and of the pre-tokenizer `ByteLevel`, with white space as Unicode defines it. */
export const WORD_PATTERN =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** Words with more characters are rare and long: not worth a place in the table. */
const LONGEST_KEPT_WORD = 64;
const KEPT_IDS = 2 ** 21;
const KEPT_WORDS = 2 ** 19;

/** Ids that are appended; grows by doubling. */
export class IdBuffer {
  #ids = new Uint16Array(2 ** 16);
  length = 0;

  push(id: number): void {
    if (this.length === this.#ids.length) this.reserve(1);
    this.#ids[this.length++] = id;
  }

  append(ids: ArrayLike<number>): void {
    this.reserve(ids.length);
    this.#ids.set(ids, this.length);
    this.length += ids.length;
  }

  /** Makes room for `count` more. */
  reserve(count: number): void {
    if (this.length + count <= this.#ids.length) return;
    const grown = new Uint16Array(Math.max(2 * this.#ids.length, this.length + count));
    grown.set(this.#ids.subarray(0, this.length));
    this.#ids = grown;
  }

  /** The ids so far, as the caller's own copy, and an empty buffer. */
  take(): Uint16Array {
    const taken = this.#ids.slice(0, this.length);
    this.length = 0;
    return taken;
  }
}

export interface ByteLevelOptions {
  /** Appends the ids of one word, given as its bytes in a string of characters 0 to 255. */
  readonly encodeWord: (word: string, out: number[]) => void;
  /** Texts that become one id wherever they stand. */
  readonly special: ReadonlyMap<string, number>;
  /** Room of the table in ids; for tests. */
  readonly keptIds?: number;
}

export class ByteLevelEncoder {
  readonly #encodeWord: ByteLevelOptions['encodeWord'];
  readonly #special: ReadonlyMap<string, number>;
  readonly #specialPattern: RegExp | undefined;
  readonly #pattern = new RegExp(WORD_PATTERN);
  /** A word's only id, or -1 - (where its ids lie in `#ids`, their number first). */
  readonly #words = new Map<string, number>();
  readonly #ids: Uint16Array;
  #kept = 0;

  constructor({ encodeWord, special, keptIds = KEPT_IDS }: ByteLevelOptions) {
    this.#ids = new Uint16Array(keptIds);
    this.#encodeWord = encodeWord;
    this.#special = special;
    // The longest of several that start alike wins.
    const texts = [...special.keys()].sort((a, b) => b.length - a.length);
    this.#specialPattern =
      texts.length === 0
        ? undefined
        : new RegExp(texts.map((text) => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')).join('|'), 'gu');
  }

  /** Appends the ids of a text. */
  encode(text: string, out: IdBuffer): void {
    if (!this.#specialPattern) return this.#encodeOrdinary(text, out);
    let from = 0;
    for (const match of text.matchAll(this.#specialPattern)) {
      this.#encodeOrdinary(text.slice(from, match.index), out);
      out.push(this.#special.get(match[0])!);
      from = match.index + match[0].length;
    }
    this.#encodeOrdinary(from === 0 ? text : text.slice(from), out);
  }

  #encodeOrdinary(text: string, out: IdBuffer): void {
    const words = text.match(this.#pattern);
    if (!words) return;
    const ids = this.#ids;
    for (const word of words) {
      const found = this.#words.get(word) ?? this.#learn(word, out);
      if (found === undefined) continue;
      if (found >= 0) out.push(found);
      else for (let at = -found, end = at + ids[-1 - found]!; at < end; at++) out.push(ids[at]!);
    }
  }

  /** Encodes a new word and gives it a place; a word too long for one is appended to `out` right here. */
  #learn(word: string, out: IdBuffer): number | undefined {
    const ids: number[] = [];
    // Decoding copies: a word cut out of a text would keep the whole text alive.
    const bytes = Buffer.from(word);
    this.#encodeWord(bytes.toString('latin1'), ids);
    if (word.length > LONGEST_KEPT_WORD) {
      out.append(ids);
      return undefined;
    }
    if (this.#words.size >= KEPT_WORDS || this.#kept + ids.length + 1 > this.#ids.length) {
      this.#words.clear();
      this.#kept = 0;
    }
    let place = ids[0]!;
    if (ids.length !== 1) {
      place = -1 - this.#kept;
      this.#ids[this.#kept] = ids.length;
      this.#ids.set(ids, this.#kept + 1);
      this.#kept += ids.length + 1;
    }
    this.#words.set(bytes.toString('utf8'), place);
    return place;
  }
}

/** What the encoder needs of a `tokenizer.json`. */
export interface ByteLevelTokenizer {
  readonly vocab: Readonly<Record<string, number>>;
  /** Pairs in the order of their rank. */
  readonly merges: readonly (readonly [string, string])[];
  readonly special: ReadonlyMap<string, number>;
  /** A word that is in the vocabulary is its id, whatever the merges say. */
  readonly wholeWords: boolean;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Reads a parsed `tokenizer.json` for the fast encoder; `undefined` when the tokenizer is of another kind (another
 * model, a normaliser, another pattern, options that change ids), which its own library must encode.
 */
export function readByteLevelTokenizer(json: unknown): ByteLevelTokenizer | undefined {
  if (!isObject(json) || (json['normalizer'] ?? null) !== null || (json['truncation'] ?? null) !== null) return undefined;
  if ((json['padding'] ?? null) !== null) return undefined;
  const { model, pre_tokenizer: split, added_tokens: added = [] } = json;
  if (!isObject(model) || !isObject(split)) return undefined;
  if (split['type'] !== 'ByteLevel' || split['add_prefix_space'] !== false || split['use_regex'] === false) return undefined;
  const { type, vocab, merges } = model;
  if (type !== 'BPE' || !isObject(vocab) || !Array.isArray(merges)) return undefined;
  const without = ['dropout', 'unk_token', 'continuing_subword_prefix', 'end_of_word_suffix'];
  if (without.some((key) => model[key] !== undefined && model[key] !== null && model[key] !== '')) return undefined;
  if (model['byte_fallback'] === true || byteAlphabet().some((character) => typeof vocab[character] !== 'number'))
    return undefined;
  const pairs = merges.map((merge) => (typeof merge === 'string' ? merge.split(' ') : merge) as readonly [string, string]);
  if (pairs.some((pair) => !Array.isArray(pair) || pair.length !== 2)) return undefined;
  const special = new Map<string, number>();
  for (const token of added as unknown[]) {
    if (!isObject(token) || typeof token['content'] !== 'string' || token['content'] === '' || typeof token['id'] !== 'number')
      return undefined;
    if (token['lstrip'] === true || token['rstrip'] === true || token['single_word'] === true) return undefined;
    special.set(token['content'], token['id']);
  }
  return { vocab: vocab as Record<string, number>, merges: pairs, special, wholeWords: model['ignore_merges'] === true };
}
