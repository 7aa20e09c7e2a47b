/**
 * JSON as Python's `json` module reads and writes it: RFC 8259 plus `NaN`, `Infinity` and `-Infinity`.
 *
 * Invariants: objects come back without a prototype, so a key such as `__proto__` or `constructor` is a plain entry and
 * looking up a missing key finds nothing inherited. Nesting is bounded, errors name line and column, and a repeated key
 * keeps its last value, as in Python, unless the caller forbids it.
 */

import { MatMambaError } from '../errors.ts';

export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
export interface JsonObject {
  [key: string]: JsonValue;
}

export interface PythonJsonOptions {
  /** What errors call the text: a path. */
  readonly name?: string;
  /** Refuse an object that says the same key twice. */
  readonly uniqueKeys?: boolean;
}

const MAX_DEPTH = 200;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const SPACE = /[ \t\n\r]*/y;
// oxlint-disable-next-line no-control-regex -- exactly these must be escaped
const PLAIN_TEXT = /[^"\\\u0000-\u001f]*/y;
const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ['\\', '\\'],
  ['/', '/'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
]);
const WORDS: ReadonlyArray<readonly [string, JsonValue]> = [
  ['null', null],
  ['true', true],
  ['false', false],
  ['NaN', NaN],
  ['Infinity', Infinity],
  ['-Infinity', -Infinity],
];

class Parser {
  readonly #text: string;
  readonly #name: string;
  readonly #uniqueKeys: boolean;
  #at = 0;

  constructor(text: string, options: PythonJsonOptions) {
    this.#text = text;
    this.#name = options.name ?? 'JSON';
    this.#uniqueKeys = options.uniqueKeys ?? false;
  }

  document(): JsonValue {
    const value = this.#value(0);
    this.#skipSpace();
    if (this.#at < this.#text.length) this.#fail('nothing more');
    return value;
  }

  #value(depth: number): JsonValue {
    if (depth > MAX_DEPTH) throw this.#error(`more than ${MAX_DEPTH} levels of nesting`);
    this.#skipSpace();
    const first = this.#text[this.#at];
    if (first === '{') return this.#object(depth);
    if (first === '[') return this.#array(depth);
    if (first === '"') return this.#string();
    for (const [word, value] of WORDS) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    const number = this.#match(NUMBER);
    if (number === '') return this.#fail('a value');
    return Number(number);
  }

  #object(depth: number): JsonObject {
    const object = Object.create(null) as JsonObject;
    this.#at++;
    this.#skipSpace();
    if (this.#take('}')) return object;
    for (;;) {
      this.#skipSpace();
      if (this.#text[this.#at] !== '"') this.#fail('a name in double quotes');
      const keyAt = this.#at;
      const key = this.#string();
      if (this.#uniqueKeys && Object.hasOwn(object, key)) {
        this.#at = keyAt;
        throw this.#error(`the name ${JSON.stringify(key)} appears twice`);
      }
      this.#skipSpace();
      if (!this.#take(':')) this.#fail("':'");
      object[key] = this.#value(depth + 1);
      this.#skipSpace();
      if (this.#take('}')) return object;
      if (!this.#take(',')) this.#fail("',' or '}'");
    }
  }

  #array(depth: number): JsonValue[] {
    const array: JsonValue[] = [];
    this.#at++;
    this.#skipSpace();
    if (this.#take(']')) return array;
    for (;;) {
      array.push(this.#value(depth + 1));
      this.#skipSpace();
      if (this.#take(']')) return array;
      if (!this.#take(',')) this.#fail("',' or ']'");
    }
  }

  #string(): string {
    this.#at++;
    let result = this.#match(PLAIN_TEXT);
    for (;;) {
      const next = this.#text[this.#at];
      if (next === '"') {
        this.#at++;
        return result;
      }
      if (next !== '\\') this.#fail(next === undefined ? 'the closing quote of a string' : 'an escaped control character');
      const letter = this.#text[this.#at + 1] ?? '';
      const plain = ESCAPES.get(letter);
      if (plain !== undefined) {
        result += plain;
        this.#at += 2;
      } else {
        const hex = this.#text.slice(this.#at + 2, this.#at + 6);
        if (letter !== 'u' || !/^[0-9a-fA-F]{4}$/.test(hex)) this.#fail('an escape such as \\n or \\u00e9');
        result += String.fromCharCode(Number.parseInt(hex, 16));
        this.#at += 6;
      }
      result += this.#match(PLAIN_TEXT);
    }
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0] ?? '';
    this.#at += found.length;
    return found;
  }

  #skipSpace(): void {
    this.#match(SPACE);
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #fail(expected: string): never {
    const found =
      this.#at < this.#text.length ? JSON.stringify(this.#text.slice(this.#at, this.#at + 12)) : 'the end of the text';
    throw this.#error(`expected ${expected}, found ${found}`);
  }

  #error(problem: string): MatMambaError {
    const before = this.#text.slice(0, this.#at).split('\n');
    const where = `line ${before.length}, column ${before.at(-1)!.length + 1}`;
    return new MatMambaError('FORMAT', `${this.#name} is not JSON: ${problem} (${where})`);
  }
}

/**
 * Parses JSON with Python's extra numbers. Objects have no prototype.
 * @throws FORMAT with line and column
 */
export function parsePythonJson(text: string, options: PythonJsonOptions = {}): JsonValue {
  return new Parser(text, options).document();
}

/** Parses UTF-8 bytes of such a text (a leading byte order mark is skipped). @throws FORMAT */
export function parsePythonJsonBytes(bytes: Uint8Array, options: PythonJsonOptions = {}): JsonValue {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new MatMambaError('FORMAT', `${options.name ?? 'JSON'} is not UTF-8 text`, { cause });
  }
  return parsePythonJson(text, options);
}

/** Whether a parsed value is an object (not null, not an array). */
export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Writes a value as Python's `json.dump(..., indent=indent)` would, `Infinity` and `NaN` included. */
export function formatPythonJson(value: unknown, indent = 2): string {
  // The three numbers travel through JSON.stringify as strings behind a marker that the rest of the text does not hold.
  const plain = JSON.stringify(value) ?? 'null';
  let marker = '#';
  while (plain.includes(marker)) marker += '#';
  const marked = JSON.stringify(
    value,
    (_key, item: unknown) => (typeof item === 'number' && !Number.isFinite(item) ? `${marker}${item}` : item),
    indent,
  );
  return (marked ?? 'null').replace(new RegExp(`"${marker}(NaN|-?Infinity)"`, 'g'), '$1');
}
