/** What browsers are given: no trace of Node, and not too much of it. */

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { buildWeb } from './support/web-build.ts';

const BUDGET_BYTES = 150_000;
/** GPT-2's vocabulary: data for models without a tokenizer of their own, fetched when one is opened. */
const VOCABULARY = /^r50k_base-/;

const folders = await buildWeb();

function scripts(folder: string): { name: string; text: string }[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.js'))
    .map((name) => ({ name, text: readFileSync(join(folder, name), 'utf8') }));
}

describe.each(Object.entries(folders))('%s', (_, folder) => {
  const all = scripts(folder);

  test('holds no Node', () => {
    for (const { name, text } of all) {
      // Module names, not the fields and messages that look like them.
      const found =
        /["'`]node:[\w/]+["'`]|\brequire\(|from\s*["'`](?:fs|path|os|koffi|sharp)\b|worker_threads|import\(["'`][^./]/.exec(text);
      expect(found?.[0], name).toBeUndefined();
    }
  });

  test('holds no address but its own', () => {
    for (const { name, text } of all) expect(/(?:src|href|from|import\()\s*=?\s*["'`]\//.exec(text)?.[0], name).toBeUndefined();
  });

  test(`stays below ${BUDGET_BYTES / 1000} kB compressed, without WebAssembly`, () => {
    // The library's bundle has the same code twice, for pages with and without an engine; a page loads one of them.
    const entries = folder.endsWith('bundle') ? [/^index\.js$|^assets\/(?!engine)/, /^browser\.js$|^assets\/(?!index)/] : [/./];
    for (const entry of entries) {
      const loaded = all.filter(({ name }) => entry.test(name) && !VOCABULARY.test(name.split('/').at(-1)!));
      const bytes = loaded.reduce((sum, { text }) => sum + gzipSync(text, { level: 9 }).length, 0);
      expect(bytes).toBeLessThan(BUDGET_BYTES);
    }
  });
});
