/** What browsers are given: no trace of Node, and not too much of it. */

import { readFileSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { buildWeb } from './support/web-build.ts';

const BUDGET_BYTES = 150_000;
/** GPT-2's vocabulary: data for models without a tokenizer of their own, fetched when one is opened. */
const VOCABULARY = /^r50k_base-/;

const folders = await buildWeb();

interface Script {
  readonly name: string;
  readonly text: string;
}

function scripts(folder: string): Script[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.js'))
    .map((name) => ({ name, text: readFileSync(join(folder, name), 'utf8') }));
}

/** The scripts whose names occur in those that are loaded, and so on. */
function reachable(all: readonly Script[], from: readonly string[]): Script[] {
  const found = new Set(all.filter(({ name }) => from.includes(name)));
  for (const { text } of found) {
    for (const script of all) {
      const name = basename(script.name);
      if (['"', "'", '`'].some((quote) => text.includes(`/${name}${quote}`) || text.includes(`${quote}${name}${quote}`)))
        found.add(script);
    }
  }
  return [...found];
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
    // Worker and library have their own copies of what they share; a page loads what one entry leads to.
    const entries = all.filter(({ name }) => !name.includes('/')).map(({ name }) => [name]);
    for (const entry of entries.length > 0 ? entries : [all.map(({ name }) => name)]) {
      const loaded = reachable(all, entry).filter(({ name }) => !VOCABULARY.test(basename(name)));
      const bytes = loaded.reduce((sum, { text }) => sum + gzipSync(text, { level: 9 }).length, 0);
      expect(bytes, entry.join()).toBeLessThan(BUDGET_BYTES);
    }
  });
});
