import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { gpt2Tokenizer } from '../text/gpt2.ts';
import { tokenizerFromJson } from '../text/tokenizer.ts';
import { ByteLevelEncoder, IdBuffer, readByteLevelTokenizer } from './byte-level.ts';
import { type TokenizerSource, openEncoder } from './encoder.ts';
import { PairMerger } from './pair-merger.ts';
import { sampleDocuments, sampleTokenizer } from './testing.ts';

const rust = await import('tokenizers').then(
  (library) => library.default,
  () => undefined,
);
const GPT2: TokenizerSource = { kind: 'gpt2' };

async function encode(source: TokenizerSource, ...texts: string[]): Promise<{ engine: string; ids: number[] }> {
  const encoder = await openEncoder(source);
  const out = new IdBuffer();
  await encoder.encode(texts, out);
  return { engine: encoder.engine, ids: [...out.take()] };
}

const jsonSource = (json: string): TokenizerSource => ({ kind: 'json', name: 'tokenizer.json', json });

/** Words, white space of many kinds, special tokens, any Unicode. */
const TEXT = fc
  .array(
    fc.oneof(
      fc.string({ unit: 'grapheme', maxLength: 12 }),
      fc.string({ unit: 'binary', maxLength: 12 }),
      fc.constantFrom(
        ...sampleDocuments(3),
        "I'll",
        '\n\n',
        ' \t ',
        '\u0085',
        '\ufeff',
        '\u00a0',
        '<|endoftext|>',
        '<|endof',
        'a'.repeat(100),
      ),
    ),
    { maxLength: 8 },
  )
  .map((parts) => parts.join(''));

describe('the fast encoder', () => {
  test.skipIf(!rust)('gives the ids of the Rust library (skipped where it is not installed)', async () => {
    const source = jsonSource(sampleTokenizer());
    const library = rust!.Tokenizer.fromString(sampleTokenizer());
    const encoder = await openEncoder(source);
    expect(encoder.engine).toBe('byte-level');
    await fc.assert(
      fc.asyncProperty(TEXT, async (text) => {
        const out = new IdBuffer();
        await encoder.encode([text], out);
        expect([...out.take()]).toEqual((await library.encode(text, null, { addSpecialTokens: false })).getIds());
      }),
      { numRuns: 200 },
    );
  });

  test("gives GPT-2's ids", async () => {
    const tokenizer = await gpt2Tokenizer();
    const encoder = await openEncoder(GPT2);
    const out = new IdBuffer();
    fc.assert(
      fc.property(TEXT, (text) => {
        void encoder.encode([text], out);
        expect([...out.take()]).toEqual([...tokenizer.encode(text)]);
      }),
      { numRuns: 200 },
    );
    // A known text, checked against the published vocabulary.
    expect((await encode(GPT2, 'Hello world\n\nHi')).ids).toEqual([15496, 995, 198, 198, 17250]);
  });

  test('reads what it wrote back', async () => {
    const tokenizer = tokenizerFromJson(JSON.parse(sampleTokenizer()));
    for (const text of sampleDocuments(10, 5))
      expect(tokenizer.decode((await encode(jsonSource(sampleTokenizer()), text)).ids)).toBe(text);
  });

  test('a megabyte of one letter is no trap', async () => {
    const { ids } = await encode(jsonSource(sampleTokenizer()), 'a'.repeat(1_000_000));
    expect(tokenizerFromJson(JSON.parse(sampleTokenizer())).decode(ids).length).toBe(1_000_000);
  });

  test('a table that overflows changes nothing', () => {
    const read = readByteLevelTokenizer(JSON.parse(sampleTokenizer()))!;
    const merger = new PairMerger(read);
    const encodeWord = (word: string, out: number[]): void => merger.encode(word, out);
    const text = sampleDocuments(30, 4).join('\n');
    const idsOf = (keptIds: number): Uint16Array => {
      const out = new IdBuffer();
      const encoder = new ByteLevelEncoder({ encodeWord, special: read.special, keptIds });
      for (let turn = 0; turn < 2; turn++) encoder.encode(text, out);
      return out.take();
    };
    expect(idsOf(200)).toEqual(idsOf(2 ** 16));
  });
});

describe('other tokenizers', () => {
  const foreign = readFileSync(new URL('../text/fixtures/byte-fallback.json', import.meta.url), 'utf8');

  test.skipIf(!rust)('are encoded by the Rust library (skipped where it is not installed)', async () => {
    const text = 'The old man said: 東京 😀';
    const { engine, ids } = await encode(jsonSource(foreign), text, text);
    expect(engine).toBe('tokenizers');
    const once = [...tokenizerFromJson(JSON.parse(foreign)).encode(text)];
    expect(ids).toEqual([...once, ...once]);
  });

  test('are told from what the fast encoder can do', () => {
    const json = JSON.parse(sampleTokenizer()) as { model: object; pre_tokenizer: object; added_tokens: object[] };
    expect(readByteLevelTokenizer(json)).toBeDefined();
    const others = [
      JSON.parse(foreign) as unknown,
      { ...json, normalizer: { type: 'NFC' } },
      { ...json, pre_tokenizer: { ...json.pre_tokenizer, add_prefix_space: true } },
      { ...json, pre_tokenizer: { type: 'Whitespace' } },
      { ...json, model: { ...json.model, dropout: 0.1 } },
      { ...json, model: { ...json.model, type: 'Unigram' } },
      { ...json, added_tokens: [{ ...json.added_tokens[0], lstrip: true }] },
      null,
      [],
    ];
    for (const other of others) expect(readByteLevelTokenizer(other)).toBeUndefined();
  });

  test('that are damaged are refused', async () => {
    await expect(openEncoder(jsonSource('{'))).rejects.toMatchObject({ code: 'FORMAT' });
    const json = JSON.parse(sampleTokenizer()) as { model: { merges: unknown[] } };
    json.model.merges.push(['q', 'zzzz']);
    await expect(openEncoder(jsonSource(JSON.stringify(json)))).rejects.toMatchObject({ code: 'FORMAT' });
  });
});
