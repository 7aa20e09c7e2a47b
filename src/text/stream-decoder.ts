/**
 * Decodes token ids one at a time into text that is ready to be shown.
 *
 * A character may be spread over several tokens; its text comes with the token that completes it, never as a U+FFFD
 * that would have to be taken back. All pieces joined are the decoded whole.
 */

import { utf8Decoder } from './byte-table.ts';
import type { Tokenizer } from './tokenizer.ts';

const REPLACEMENT = '\uFFFD';

/** One text being decoded; not to be shared between generations. */
export class StreamDecoder {
  readonly #tokenizer: Tokenizer;
  #utf8 = utf8Decoder();
  #window: number[] = [];
  /** How many ids of the window were shown already, and how many characters of the window's text. */
  #shownIds = 0;
  #shownChars = 0;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** Takes the next id and returns the text that it completes, possibly none. @throws TOKEN */
  push(id: number): string {
    if (this.#tokenizer.bytes) return this.#utf8.decode(this.#tokenizer.bytes(id), { stream: true });
    return this.#pushWindow(id);
  }

  /** The end of the text: what is left of an unfinished character. The decoder then starts anew. */
  flush(): string {
    const rest = this.#tokenizer.bytes ? this.#utf8.decode() : this.#tokenizer.decode(this.#window).slice(this.#shownChars);
    this.#utf8 = utf8Decoder();
    this.#window = [];
    this.#shownIds = this.#shownChars = 0;
    return rest;
  }

  /**
   * Where a token's text depends on its neighbours (a space marker that vanishes at the start of a text, bytes as
   * fallback), the last ids are decoded again with every new one. The ids shown last stay in the window as the left
   * neighbours of the new ones; the window grows only while a character is unfinished.
   */
  #pushWindow(id: number): string {
    // A wrong id must not stay in the window.
    this.#tokenizer.decode([id]);
    this.#window.push(id);
    const text = this.#tokenizer.decode(this.#window);
    // The unfinished character at the end, if any, reads as exactly one U+FFFD.
    const unfinished = text.endsWith(REPLACEMENT);
    const ready = unfinished ? text.length - 1 : text.length;
    const piece = text.slice(this.#shownChars, ready);
    this.#shownChars = Math.max(this.#shownChars, ready);
    if (unfinished) return piece;
    if (piece === '') return '';
    this.#window = this.#window.slice(this.#shownIds);
    this.#shownIds = this.#window.length;
    this.#shownChars = this.#tokenizer.decode(this.#window).length;
    return piece;
  }
}
