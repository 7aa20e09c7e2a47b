import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { gpt2Tokenizer } from './gpt2.ts';
import { StreamDecoder } from './stream-decoder.ts';
import { type Tokenizer, tokenizerFromJson } from './tokenizer.ts';

const NAMES = ['byte-level', 'byte-fallback', 'gpt2'];
const tokenizers: Record<string, Tokenizer> = {};

beforeAll(async () => {
  for (const name of ['byte-level', 'byte-fallback']) {
    tokenizers[name] = tokenizerFromJson(JSON.parse(await readFile(new URL(`./fixtures/${name}.json`, import.meta.url), 'utf8')));
  }
  tokenizers['gpt2'] = await gpt2Tokenizer();
});

function piecesOf(tokenizer: Tokenizer, ids: Iterable<number>): string[] {
  const decoder = new StreamDecoder(tokenizer);
  const pieces = Array.from(ids, (id) => decoder.push(id));
  return [...pieces, decoder.flush()];
}

describe.each(NAMES)('StreamDecoder with a %s tokenizer', (name) => {
  it('gives pieces that join to the whole, whatever the ids', () => {
    const tokenizer = tokenizers[name]!;
    // Mostly single bytes, so that damaged and unfinished characters are common.
    const low = fc.integer({ min: 0, max: Math.min(300, tokenizer.vocabSize - 1) });
    const any = fc.integer({ min: 0, max: tokenizer.vocabSize - 1 });
    fc.assert(
      fc.property(fc.array(fc.oneof(low, any), { maxLength: 40 }), (ids) => {
        expect(piecesOf(tokenizer, ids).join('')).toBe(tokenizer.decode(ids));
      }),
      { numRuns: 500 },
    );
  });

  it('never shows U+FFFD for a character that is still unfinished', () => {
    const tokenizer = tokenizers[name]!;
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 30 }), (text) => {
        fc.pre(!text.includes('\ufffd'));
        const pieces = piecesOf(tokenizer, tokenizer.encode(text));
        expect(pieces.join('')).toBe(tokenizer.decode(tokenizer.encode(text)));
        for (const piece of pieces) expect(!/[\p{Surrogate}\ufffd]/u.test(piece)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it('shows a character with the token that completes it, and the rest at the end', () => {
    const tokenizer = tokenizers[name]!;
    const ids = [...tokenizer.encode('x😀')];
    const pieces = piecesOf(tokenizer, ids);
    expect(pieces.at(-2)).toBe('😀');
    expect(pieces.at(-1)).toBe('');
    expect(piecesOf(tokenizer, ids.slice(0, -1)).at(-1)).toBe('\ufffd');
  });

  it('starts anew after a flush, and after a wrong id goes on', () => {
    const tokenizer = tokenizers[name]!;
    const decoder = new StreamDecoder(tokenizer);
    const ids = tokenizer.encode('the é');
    for (let round = 0; round < 2; round++) {
      let text = '';
      for (const id of ids) {
        expect(() => decoder.push(tokenizer.vocabSize)).toThrow(expect.objectContaining({ code: 'TOKEN' }));
        text += decoder.push(id);
      }
      expect(text + decoder.flush()).toBe('the é');
    }
  });
});
