import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import * as reference from 'gpt-tokenizer/encoding/r50k_base';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { defaultTokenizerFor, gpt2Tokenizer } from './gpt2.ts';
import { type Tokenizer, loadTokenizer, tokenizerFromJson } from './tokenizer.ts';

async function fixture(name: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(new URL(`./fixtures/${name}.json`, import.meta.url), 'utf8')) as Record<string, unknown>;
}

let byteLevel: Record<string, unknown>;
let byteFallback: Record<string, unknown>;
const tokenizers: Record<string, Tokenizer> = {};

beforeAll(async () => {
  byteLevel = await fixture('byte-level');
  byteFallback = await fixture('byte-fallback');
  tokenizers['byte-level'] = tokenizerFromJson(byteLevel);
  tokenizers['byte-fallback'] = tokenizerFromJson(byteFallback);
  tokenizers['gpt2'] = await gpt2Tokenizer();
});

const text = fc.string({ unit: 'binary', maxLength: 60 });
const anyUnits = fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 40 }).map((units) => String.fromCharCode(...units));
const AWKWARD = [
  '',
  '\0',
  'a\0b',
  '\uFEFFmark',
  ' \uFEFF x',
  'next\u0085line',
  'e\u0301 \u00e9 ﬁ',
  '漢字かな交じり文、한국어',
  '👩‍👩‍👧‍👦 🏳️‍🌈 😀😀',
  '\u{10FFFF}\u{1D11E}',
  '   \n\n\t  x   ',
  "it's we'll I'VE 123 4567 !?!",
  '__proto__ constructor toString',
];

describe.each(['byte-level', 'gpt2'])('%s tokenizer', (name) => {
  it('gives back any text', () => {
    const tokenizer = tokenizers[name]!;
    for (const sample of AWKWARD) expect(tokenizer.decode(tokenizer.encode(sample))).toBe(sample);
    fc.assert(
      fc.property(text, (sample) => tokenizer.decode(tokenizer.encode(sample)) === sample),
      { numRuns: 300 },
    );
  });

  it('reads lone surrogates as U+FFFD', () => {
    const tokenizer = tokenizers[name]!;
    expect(tokenizer.decode(tokenizer.encode('a\ud800b\udc00'))).toBe('a\ufffdb\ufffd');
    fc.assert(
      fc.property(
        anyUnits,
        (sample) => tokenizer.decode(tokenizer.encode(sample)) === sample.replace(/\p{Surrogate}/gu, '\ufffd'),
      ),
      { numRuns: 200 },
    );
  });

  it('makes special tokens of their text, and says which ends a text', () => {
    const tokenizer = tokenizers[name]!;
    const end = tokenizer.endTokenId!;
    expect([...tokenizer.encode('<|endoftext|>')]).toEqual([end]);
    expect([...tokenizer.encode('a<|endoftext|><|endoftext|>a')]).toEqual([
      ...tokenizer.encode('a'),
      end,
      end,
      ...tokenizer.encode('a'),
    ]);
    expect(tokenizer.decode([end])).toBe('<|endoftext|>');
    expect(tokenizer.decode(tokenizer.encode('<|endoftext|'))).toBe('<|endoftext|');
  });

  it('joins the bytes of its ids to the text', () => {
    const tokenizer = tokenizers[name]!;
    const ids = tokenizer.encode('naïve 😀');
    expect(Buffer.concat(Array.from(ids, (id) => tokenizer.bytes!(id))).toString()).toBe('naïve 😀');
  });

  it('refuses ids that it does not have, naming the place', () => {
    const tokenizer = tokenizers[name]!;
    for (const id of [tokenizer.vocabSize, -1, 1.5, NaN]) {
      expect(() => tokenizer.decode([0, id])).toThrow(
        expect.objectContaining({ code: 'TOKEN', message: expect.stringContaining('position 1') as string }),
      );
      expect(() => tokenizer.bytes!(id)).toThrow(expect.objectContaining({ code: 'TOKEN' }));
    }
    expect(tokenizer.decode([])).toBe('');
  });

  it('takes long runs of one character', () => {
    const tokenizer = tokenizers[name]!;
    // Quadratic merging would take minutes here.
    for (const sample of ['a'.repeat(100_000), '😀'.repeat(20_000), '\n'.repeat(50_000)]) {
      expect(tokenizer.decode(tokenizer.encode(sample)) === sample).toBe(true);
    }
  });
});

describe('gpt2Tokenizer', () => {
  it('gives the ids of GPT-2', () => {
    const { gpt2 } = tokenizers;
    expect(gpt2!.vocabSize).toBe(50257);
    expect([...gpt2!.encode('Hello world')]).toEqual([15496, 995]);
    fc.assert(
      fc.property(
        fc.oneof(text, fc.string({ unit: fc.constantFrom(...Array.from(" 'a 'the s\n\téü.,!12😀")), maxLength: 200 })),
        (sample) => {
          // The reference counts U+FEFF as white space, which GPT-2 does not, and U+0085 not.
          fc.pre(!/[\uFEFF\u0085]/.test(sample));
          expect([...gpt2!.encode(sample)]).toEqual(reference.encode(sample));
        },
      ),
      { numRuns: 300 },
    );
  });

  it('stands in for vocabularies of its size', async () => {
    expect(await defaultTokenizerFor(50257)).toBe(tokenizers['gpt2']);
    expect(await defaultTokenizerFor(50280)).toBe(tokenizers['gpt2']);
    expect(await defaultTokenizerFor(50288)).toBe(tokenizers['gpt2']);
    for (const size of [4096, 50256, 50289, NaN]) {
      await expect(defaultTokenizerFor(size)).rejects.toMatchObject({
        code: 'TOKEN',
        hint: expect.stringContaining('--tokenizer') as string,
      });
    }
  });
});

describe('tokenizerFromJson', () => {
  it('decodes tokenizers that are not byte-level', () => {
    const tokenizer = tokenizers['byte-fallback']!;
    expect('bytes' in tokenizer).toBe(false);
    expect(tokenizer.decode(tokenizer.encode('the old sea 😀'))).toBe('the old sea 😀');
    expect(tokenizer.decode([])).toBe('');
    expect(() => tokenizer.decode([0, 9999])).toThrow(expect.objectContaining({ code: 'TOKEN' }));
    for (const sample of AWKWARD) expect(() => tokenizer.encode(sample)).not.toThrow();
  });

  it('takes the end token from the configuration first', () => {
    expect(tokenizerFromJson(byteLevel, { eos_token: '!' }).endTokenId).toBe(1);
    expect(tokenizerFromJson(byteLevel, { eos_token: { content: '"' } }).endTokenId).toBe(2);
    expect(tokenizerFromJson(byteLevel, { eos_token: null }).endTokenId).toBe(0);
    expect(tokenizerFromJson(byteFallback).endTokenId).toBe(2);
    expect(tokenizerFromJson({ ...byteLevel, added_tokens: [] }).endTokenId).toBeUndefined();
    expect(() => tokenizerFromJson(byteLevel, { eos_token: 'nothing' })).toThrow(expect.objectContaining({ code: 'FORMAT' }));
  });

  it('reads holes in the vocabulary as nothing', () => {
    const holes = { ...byteLevel, added_tokens: [{ id: 600, content: '<|pad|>', special: true }] };
    const tokenizer = tokenizerFromJson(holes);
    expect(tokenizer.vocabSize).toBe(601);
    expect(tokenizer.decode([1, 550, 600])).toBe('!<|pad|>');
  });

  it('refuses what is no tokenizer', () => {
    const model = byteLevel['model'] as Record<string, unknown>;
    const wrong: unknown[] = [
      undefined,
      null,
      'text',
      [],
      {},
      { model: {} },
      { ...byteLevel, model: { ...model, type: 'Telepathy' } },
      { ...byteLevel, model: { ...model, vocab: {}, merges: [] }, added_tokens: [] },
      { ...byteLevel, model: { ...model, vocab: { a: 'one' } } },
      { ...byteLevel, model: { ...model, vocab: { a: 1e12 } } },
      { ...byteLevel, added_tokens: [{ id: 4e9, content: 'x' }] },
      { ...byteLevel, added_tokens: 3 },
      { ...byteLevel, added_tokens: [{ id: 3 }] },
      { ...byteLevel, decoder: { type: 'Telepathy' } },
      { ...byteLevel, model: { ...model, merges: 4 } },
    ];
    for (const json of wrong) {
      expect(() => tokenizerFromJson(json), JSON.stringify(json)?.slice(0, 200)).toThrow(
        expect.objectContaining({ code: 'FORMAT' }),
      );
    }
    expect(() => tokenizerFromJson(byteLevel, [])).toThrow(expect.objectContaining({ code: 'FORMAT' }));
  });
});

describe('loadTokenizer', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'tokenizer-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('reads a folder or a file, and says what is wrong with it', async () => {
    await expect(loadTokenizer(path.join(folder, 'none'))).rejects.toMatchObject({ code: 'FILE' });
    await expect(loadTokenizer(folder)).rejects.toMatchObject({
      code: 'FILE',
      hint: expect.stringContaining('--tokenizer') as string,
    });
    const file = path.join(folder, 'tokenizer.json');
    await writeFile(file, '{"model":');
    await expect(loadTokenizer(folder)).rejects.toMatchObject({ code: 'FORMAT' });
    await writeFile(file, JSON.stringify(byteLevel));
    expect(await loadTokenizer(folder)).toMatchObject({ vocabSize: 477, endTokenId: 0, name: path.basename(folder) });
    await writeFile(path.join(folder, 'tokenizer_config.json'), '{"eos_token": "!"}');
    expect((await loadTokenizer(folder)).endTokenId).toBe(1);
    expect((await loadTokenizer(file)).endTokenId).toBe(1);
    await writeFile(path.join(folder, 'tokenizer_config.json'), '{');
    await expect(loadTokenizer(folder)).rejects.toMatchObject({ code: 'FORMAT' });
  });
});
