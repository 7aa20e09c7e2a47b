/**
 * What each token id of a byte-level vocabulary stands for: a run of raw bytes.
 *
 * Text is the UTF-8 reading of the joined runs, so a character may be spread over several tokens, and a run on its
 * own need not be valid UTF-8. All runs lie in one buffer; `offsets[id]` to `offsets[id + 1]` is the run of `id`.
 */

import { MatMambaError } from '../errors.ts';

/** The reading used everywhere: damaged UTF-8 becomes U+FFFD, a byte order mark is a character like any other. */
export function utf8Decoder(): TextDecoder {
  return new TextDecoder('utf-8', { fatal: false, ignoreBOM: true });
}

export class ByteTable {
  readonly size: number;
  readonly #bytes: Uint8Array;
  readonly #offsets: Uint32Array;
  readonly #utf8 = utf8Decoder();

  /** @param runs the bytes of every id, in the order of ids; `undefined` for an id that stands for nothing. */
  constructor(runs: readonly (Uint8Array | undefined)[]) {
    this.size = runs.length;
    this.#offsets = new Uint32Array(runs.length + 1);
    for (let id = 0; id < runs.length; id++) this.#offsets[id + 1] = this.#offsets[id]! + (runs[id]?.length ?? 0);
    this.#bytes = new Uint8Array(this.#offsets[runs.length]!);
    for (let id = 0; id < runs.length; id++) {
      const run = runs[id];
      if (run) this.#bytes.set(run, this.#offsets[id]);
    }
  }

  /** The bytes of one id, the caller's own copy. @throws TOKEN */
  bytes(id: number): Uint8Array {
    requireToken(id, this.size, undefined);
    return this.#bytes.slice(this.#offsets[id], this.#offsets[id + 1]);
  }

  /** The text of a sequence of ids. @throws TOKEN when one is not in the vocabulary, naming its position */
  decode(ids: ArrayLike<number>): string {
    let length = 0;
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      requireToken(id, this.size, i);
      length += this.#offsets[id + 1]! - this.#offsets[id]!;
    }
    const joined = new Uint8Array(length);
    for (let i = 0, at = 0; i < ids.length; i++) {
      const id = ids[i]!;
      const end = this.#offsets[id + 1]!;
      for (let from = this.#offsets[id]!; from < end; from++) joined[at++] = this.#bytes[from]!;
    }
    return this.#utf8.decode(joined);
  }
}

/** Refuses a token id that the tokenizer does not have. @throws TOKEN */
export function requireToken(id: number, vocabSize: number, position: number | undefined): void {
  if (Number.isInteger(id) && id >= 0 && id < vocabSize) return;
  const where = position === undefined ? '' : ` at position ${position}`;
  throw new MatMambaError('TOKEN', `token id ${id}${where} is not one of the tokenizer's ${vocabSize} ids`, {
    hint: `ids are whole numbers from 0 to ${vocabSize - 1}`,
  });
}

/**
 * The printable character that stands for each byte in the vocabulary file of a byte-level tokenizer: printable
 * Latin-1 stands for itself, the other 68 bytes take the characters from U+0100 on, in order.
 */
export function byteAlphabet(): string[] {
  const printable = (byte: number): boolean => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
}
