/**
 * From a tokenizer to the fastest encoder that gives its ids: byte-level BPE with GPT-2's pattern is encoded here
 * (`byte-level.ts`); every other `tokenizer.json` by the Rust library `tokenizers`, or, where that optional package is
 * not installed, by its JavaScript sibling. Measured on novels, one core: 20, 1.6 and 1 MB/s.
 */

import { BytePairMerger, byteString } from '../text/byte-pair.ts';
import { gpt2Tokenizer } from '../text/gpt2.ts';
import { tokenizerFromJson } from '../text/tokenizer.ts';
import { MatMambaError, messageOf } from '../errors.ts';
import { ByteLevelEncoder, type IdBuffer, readByteLevelTokenizer } from './byte-level.ts';
import { PairMerger } from './pair-merger.ts';

/** The most ids that 16 bits tell apart. */
export const MOST_IDS = 2 ** 16;

/** A tokenizer as it is handed to a worker: GPT-2's own, or the text of a `tokenizer.json`. */
export type TokenizerSource = { readonly kind: 'gpt2' } | { readonly kind: 'json'; readonly name: string; readonly json: string };

export interface Encoder {
  /** What encodes, for reports. */
  readonly engine: 'byte-level' | 'tokenizers' | '@huggingface/tokenizers';
  /** Appends the ids of several texts, one after the other. @throws TOKEN when an id does not fit 16 bits */
  encode(texts: readonly string[], out: IdBuffer): Promise<void>;
}

/** Texts with this many characters go to the library at once. */
const BATCH_CHARACTERS = 2 ** 20;

/** @throws FORMAT when the tokenizer cannot be read, TOKEN */
export async function openEncoder(source: TokenizerSource): Promise<Encoder> {
  if (source.kind === 'gpt2') return byteLevel(await gpt2Encoder());
  let json: unknown;
  try {
    json = JSON.parse(source.json);
  } catch (cause) {
    throw new MatMambaError('FORMAT', `${source.name} is not valid JSON: ${messageOf(cause)}`, { cause });
  }
  const read = readByteLevelTokenizer(json);
  if (read) {
    try {
      const merger = new PairMerger(read);
      return byteLevel(new ByteLevelEncoder({ encodeWord: (word, out) => merger.encode(word, out), special: read.special }));
    } catch (cause) {
      throw new MatMambaError('FORMAT', `${source.name} is not a tokenizer that can be read: ${messageOf(cause)}`, { cause });
    }
  }
  return (await nativeEncoder(source)) ?? scriptEncoder(source, json);
}

function byteLevel(encoder: ByteLevelEncoder): Encoder {
  return {
    engine: 'byte-level',
    async encode(texts, out) {
      for (const text of texts) encoder.encode(text, out);
    },
  };
}

async function gpt2Encoder(): Promise<ByteLevelEncoder> {
  const tokenizer = await gpt2Tokenizer();
  const end = tokenizer.endTokenId!;
  const ranks = new Map(Array.from({ length: end }, (_, id) => [byteString(tokenizer.bytes!(id)), id]));
  const merger = new BytePairMerger(ranks);
  return new ByteLevelEncoder({
    encodeWord: (word, out) => merger.encode(word, out),
    special: new Map([['<|endoftext|>', end]]),
  });
}

/** The Rust library; `undefined` where it is not installed. */
async function nativeEncoder({ name, json }: { readonly name: string; readonly json: string }): Promise<Encoder | undefined> {
  const library = await import('tokenizers').catch(() => undefined);
  const Tokenizer = library?.Tokenizer ?? library?.default.Tokenizer;
  if (!Tokenizer) return undefined;
  let tokenizer: InstanceType<typeof Tokenizer>;
  try {
    tokenizer = Tokenizer.fromString(json);
    tokenizer.disableTruncation();
    tokenizer.disablePadding();
  } catch (cause) {
    throw new MatMambaError('FORMAT', `${name} is not a tokenizer that can be read: ${messageOf(cause)}`, { cause });
  }
  return {
    engine: 'tokenizers',
    async encode(texts, out) {
      for (let from = 0; from < texts.length;) {
        let to = from;
        for (let characters = 0; to < texts.length && characters < BATCH_CHARACTERS; to++) characters += texts[to]!.length;
        // A batch is spread over the cores by the library itself.
        const encodings = await tokenizer.encodeBatch(texts.slice(from, to), { addSpecialTokens: false });
        for (const encoding of encodings) appendChecked(encoding.getIds(), out, name);
        from = to;
      }
    },
  };
}

function scriptEncoder({ name }: { readonly name: string }, json: unknown): Encoder {
  const tokenizer = tokenizerFromJson(json, undefined, name);
  return {
    engine: '@huggingface/tokenizers',
    async encode(texts, out) {
      for (const text of texts) appendChecked(tokenizer.encode(text), out, name);
    },
  };
}

function appendChecked(ids: ArrayLike<number>, out: IdBuffer, name: string): void {
  for (let i = 0; i < ids.length; i++) if (ids[i]! >= MOST_IDS) throw tooManyIds(name, `id ${ids[i]}`);
  out.append(ids);
}

/** What to say of a tokenizer whose ids do not fit a token file. */
export function tooManyIds(name: string, what: string): MatMambaError {
  return new MatMambaError('TOKEN', `${name} has ${what}, but token files hold ids below ${MOST_IDS}`, {
    hint: "use a tokenizer with at most 65,536 ids: GPT-2's (the default), or a new one with --train-bpe",
  });
}
