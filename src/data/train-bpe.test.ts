import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { tokenizerFromJson } from '../text/tokenizer.ts';
import { sampleDocuments } from './testing.ts';
import { countWords, trainBytePairs } from './train-bpe.ts';

const rust = await import('tokenizers').then(
  (library) => library.default,
  () => undefined,
);

interface Json {
  readonly model: { readonly vocab: Record<string, number>; readonly merges: readonly (string | [string, string])[] };
}

function counted(texts: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const text of texts) countWords(text, counts);
  return counts;
}

describe('training byte pairs', () => {
  test('gives a tokenizer that decodes what it encodes', () => {
    const json = JSON.parse(trainBytePairs(counted(sampleDocuments(60)), 350)) as Json;
    const tokenizer = tokenizerFromJson(json);
    expect([tokenizer.vocabSize, tokenizer.endTokenId]).toEqual([350, 0]);
    expect(json.model.vocab['<|endoftext|>']).toBe(0);
    expect(json.model.vocab['!']).toBe(1);
    expect(json.model.merges.length).toBe(350 - 257);
    for (const text of sampleDocuments(5, 9)) expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  });

  test.skipIf(!rust)('merges what the Rust library merges (skipped where it is not installed)', () => {
    const folder = mkdtempSync(join(tmpdir(), 'matmamba-bpe-'));
    try {
      // The library reads files by lines.
      const lines = sampleDocuments(150, 3).flatMap((text) => text.split(/[\r\n]+/).map((line) => `${line}\n`));
      writeFileSync(join(folder, 'text.txt'), lines.join(''));
      const library = new rust!.Tokenizer(rust!.BPE.empty());
      library.setPreTokenizer(rust!.byteLevelPreTokenizer(false));
      library.train([join(folder, 'text.txt')]);
      library.save(join(folder, 'rust.json'));
      const theirs = (JSON.parse(readFileSync(join(folder, 'rust.json'), 'utf8')) as Json).model.merges.map(String);
      const ours = (JSON.parse(trainBytePairs(counted(lines), 257 + theirs.length)) as Json).model.merges.map(String);
      expect(ours.length).toBeGreaterThan(100);
      expect(ours).toEqual(theirs.slice(0, ours.length));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('refuses sizes that cannot be', () => {
    expect(() => trainBytePairs(new Map(), 256)).toThrow(/257 to 65536/);
    expect(() => trainBytePairs(counted(['aaa bbb']), 1000)).toThrow(/the text gives \d+ tokens, not 1000/);
  });

  test('counts special tokens as none of the words', () => {
    expect(counted(['a<|endoftext|>a b'])).toEqual(
      new Map([
        ['a', 2],
        [' b', 1],
      ]),
    );
  });
});
