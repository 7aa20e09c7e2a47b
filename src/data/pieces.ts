/**
 * Where a long text may be cut before tokenising: in front of a blank line that follows a character other than white
 * space. There no word of a byte-level tokenizer reaches across, so the ids are those of the whole text.
 */

const NEWLINE = 10;
const SPACE_AT_END = /\p{White_Space}$/u;
/** No character is longer. */
const CHARACTER_BYTES = 4;

/** Cuts a text in front of every blank line number `paragraphs`, 2 * `paragraphs`, ...; 0 leaves it whole. */
export function cutPieces(text: string, paragraphs: number): string[] {
  if (paragraphs === 0) return [text];
  const pieces: string[] = [];
  let from = 0;
  let count = 0;
  for (let at = text.indexOf('\n\n'); at >= 0; at = text.indexOf('\n\n', at + 2)) {
    // A piece that was cut off begins with the blank line that it was cut at.
    if (at === from || ++count < paragraphs || SPACE_AT_END.test(text.slice(at - 1, at))) continue;
    pieces.push(text.slice(from, at));
    from = at;
    count = 0;
  }
  pieces.push(from === 0 ? text : text.slice(from));
  return pieces;
}

/** Finds the places where `cutPieces` would cut a text that arrives bit by bit; looks at every byte once. */
export class PieceScanner {
  readonly #paragraphs: number;
  #at = 0;
  #from = 0;
  #count = 0;

  constructor(paragraphs: number) {
    this.#paragraphs = Math.max(1, paragraphs);
  }

  /** The last cut in the bytes so far, or 0. What was there before must still be there. */
  scan(bytes: Buffer): number {
    let cut = 0;
    for (;;) {
      const at = bytes.indexOf('\n\n', this.#at, 'latin1');
      if (at < 0) break;
      this.#at = at + 2;
      if (at === this.#from || ++this.#count < this.#paragraphs) continue;
      if (SPACE_AT_END.test(bytes.toString('utf8', Math.max(0, at - CHARACTER_BYTES), at))) continue;
      cut = at;
      this.#from = at;
      this.#count = 0;
    }
    // The second half of a blank line may be still to come.
    this.#at = Math.max(this.#at, bytes.at(-1) === NEWLINE ? bytes.length - 1 : bytes.length);
    return cut;
  }

  /** The bytes before a cut were taken away. */
  shift(cut: number): void {
    this.#at -= cut;
    this.#from -= cut;
  }
}
