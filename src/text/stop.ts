/**
 * Finds stop strings in text that arrives in pieces, and never lets a part of one through.
 *
 * The stop string that is complete first wins, and of those that end together the one that began first; so the
 * result does not depend on how the text was cut into pieces.
 */

import { MatMambaError } from '../errors.ts';

/** What may be shown, and whether a stop string was met: then nothing comes after it. */
export interface StopResult {
  readonly text: string;
  readonly stopped: boolean;
}

/** One text being watched. */
export class StopMatcher {
  readonly #stops: readonly string[];
  readonly #longest: number;
  /** The end of the text so far, as long as a stop string may begin in it. */
  #held = '';
  #stopped = false;

  /** @throws OPTION for an empty stop string */
  constructor(stops: readonly string[]) {
    for (const stop of stops) {
      if (typeof stop === 'string' && stop !== '') continue;
      throw new MatMambaError('OPTION', `a stop string is ${JSON.stringify(stop)}`, {
        hint: 'stop strings hold at least one character',
      });
    }
    this.#stops = [...new Set(stops)];
    this.#longest = this.#stops.reduce((longest, stop) => Math.max(longest, stop.length), 0);
  }

  /** Takes the next piece of text; returns what is safe to show. */
  push(piece: string): StopResult {
    if (this.#stopped) return { text: '', stopped: true };
    const text = this.#held + piece;
    let start = -1;
    let end = Infinity;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at < 0) continue;
      const stopEnd = at + stop.length;
      if (stopEnd < end || (stopEnd === end && at < start)) [start, end] = [at, stopEnd];
    }
    if (start >= 0) {
      this.#stopped = true;
      this.#held = '';
      return { text: text.slice(0, start), stopped: true };
    }
    const safe = text.length - this.#openLength(text);
    this.#held = text.slice(safe);
    return { text: text.slice(0, safe), stopped: false };
  }

  /** The end of the text: what was held back and turned out to be no stop string. */
  flush(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }

  /** The length of the longest end of the text that some stop string begins with. */
  #openLength(text: string): number {
    for (let length = Math.min(this.#longest - 1, text.length); length > 0; length--) {
      const ending = text.slice(-length);
      if (this.#stops.some((stop) => stop.length > length && stop.startsWith(ending))) return length;
    }
    return 0;
  }
}
