/**
 * GPT-2's tokenizer, which stands in for published MatMamba folders: they hold no tokenizer of their own.
 *
 * The vocabulary and the splitting pattern come from gpt-tokenizer, loaded on first use and nothing else of it: its
 * own merging takes quadratic time in the length of a word, and it throws on text that names a special token.
 */

import { MatMambaError, messageOf } from '../errors.ts';
import { BytePairMerger, byteString } from './byte-pair.ts';
import { ByteTable } from './byte-table.ts';
import type { Tokenizer } from './tokenizer.ts';

const END_OF_TEXT = '<|endoftext|>';
const GPT2_VOCAB = 50257;
/** Published models pad GPT-2's vocabulary to a multiple of at most 32. */
const GPT2_VOCAB_PADDED = 50288;

let loaded: Promise<Tokenizer> | undefined;

/**
 * GPT-2's byte-level BPE, 50,257 ids; `<|endoftext|>` (50256) ends a text. Loaded once.
 * @throws FILE when the vocabulary cannot be loaded
 */
export function gpt2Tokenizer(): Promise<Tokenizer> {
  loaded ??= load().catch((error: unknown) => {
    loaded = undefined;
    throw new MatMambaError('FILE', `GPT-2's vocabulary cannot be loaded: ${messageOf(error)}`, {
      hint: 'it is part of the package gpt-tokenizer: install the dependencies again',
      cause: error,
    });
  });
  return loaded;
}

/**
 * The tokenizer that a model without one of its own was trained with, told by its vocabulary: GPT-2's, padded.
 * @throws TOKEN for any other vocabulary
 */
export async function defaultTokenizerFor(vocabSize: number): Promise<Tokenizer> {
  if (vocabSize >= GPT2_VOCAB && vocabSize <= GPT2_VOCAB_PADDED) return gpt2Tokenizer();
  throw new MatMambaError('TOKEN', `no tokenizer is known for a vocabulary of ${vocabSize}`, {
    hint: 'name the folder or the tokenizer.json of the one it was trained with (--tokenizer)',
  });
}

async function load(): Promise<Tokenizer> {
  const [{ default: vocabulary }, { R50K_TOKEN_SPLIT_REGEX }] = await Promise.all([
    import('gpt-tokenizer/bpeRanks/r50k_base'),
    import('gpt-tokenizer/encodingParams/constants'),
  ]);
  const encoder = new TextEncoder();
  const runs = vocabulary.map((entry) => (typeof entry === 'string' ? encoder.encode(entry) : Uint8Array.from(entry)));
  const merger = new BytePairMerger(new Map(runs.map((run, id) => [byteString(run), id])));
  const endTokenId = runs.length;
  const table = new ByteTable([...runs, encoder.encode(END_OF_TEXT)]);
  const pattern = unicodeSpaces(R50K_TOKEN_SPLIT_REGEX);

  return {
    name: 'gpt2',
    vocabSize: table.size,
    endTokenId,
    encode(text) {
      const ids: number[] = [];
      text.split(END_OF_TEXT).forEach((part, index) => {
        if (index > 0) ids.push(endTokenId);
        for (const [piece] of part.matchAll(pattern)) merger.encode(utf8String(piece, encoder), ids);
      });
      return Int32Array.from(ids);
    },
    decode: (ids) => table.decode(ids),
    bytes: (id) => table.bytes(id),
  };
}

/**
 * The same pattern with white space as Unicode defines it, which is what GPT-2 was trained with: JavaScript's `\s`
 * counts the byte order mark and leaves out U+0085.
 */
function unicodeSpaces(pattern: RegExp): RegExp {
  const source = pattern.source.replaceAll('\\s', '\\p{White_Space}').replaceAll('\\S', '\\P{White_Space}');
  return new RegExp(source, pattern.flags);
}

/** UTF-8 as a byte string; lone surrogates become U+FFFD. */
function utf8String(text: string, encoder: TextEncoder): string {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0x7f) return byteString(encoder.encode(text));
  return text;
}
