/**
 * Tokenizers: text to token ids and back, from a Hugging Face `tokenizer.json` or GPT-2's own vocabulary.
 *
 * Invariants: `encode` never throws on any string; a lone surrogate reads as U+FFFD; the text of a special token
 * inside a prompt becomes that special token; nothing is put before or after the text. `decode` shows special tokens
 * as their text and tidies no spaces, so that decode(encode(text)) is the text for byte-level tokenizers.
 */

import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { MatMambaError, messageOf } from '../errors.ts';
import { byteAlphabet, ByteTable, requireToken } from './byte-table.ts';

/** Text to token ids and back. Safe to share: calls leave no state behind. */
export interface Tokenizer {
  /** Where it came from, for messages. */
  readonly name: string;
  /** One more than the highest id. A model's vocabulary may be larger: it is padded. */
  readonly vocabSize: number;
  /** The id that ends a text, if there is one. */
  readonly endTokenId: number | undefined;
  encode(text: string): Int32Array;
  /** @throws TOKEN when an id is not in the vocabulary */
  decode(ids: ArrayLike<number>): string;
  /** The raw bytes of one id; absent where an id's text depends on its neighbours. @throws TOKEN */
  bytes?(id: number): Uint8Array;
}

const MODEL_TYPES = ['BPE', 'WordPiece', 'WordLevel', 'Unigram'];
const END_TOKENS = ['<|endoftext|>', '</s>', '<|end_of_text|>', '<eos>'];

/**
 * A tokenizer from a parsed `tokenizer.json` and, where there is one, a parsed `tokenizer_config.json`, whose
 * `eos_token` names the end token; without it the end token is `<|endoftext|>` or `</s>` among the added tokens.
 * @throws FORMAT when the JSON is not a tokenizer, or one that is not supported
 */
export function tokenizerFromJson(json: unknown, config?: unknown, name = 'tokenizer.json'): Tokenizer {
  const source: JsonObject = {
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    ...requireTokenizer(json, name),
  };
  const settings = requireConfig(config);
  const eosToken = eosTokenOf(settings);
  const added = requireAddedTokens(source['added_tokens'], name);
  let inner: HuggingFaceTokenizer;
  try {
    inner = new HuggingFaceTokenizer({ ...source, added_tokens: added }, { ...settings, eos_token: eosToken });
  } catch (error) {
    throw notATokenizer(name, messageOf(error), error);
  }
  const vocab = inner.model?.vocab ?? [];
  if (vocab.length === 0) throw notATokenizer(name, 'its vocabulary is empty');
  const common = {
    name,
    vocabSize: vocab.length,
    endTokenId: findEndToken(inner, eosToken, added, name),
    encode: (text: string): Int32Array => encodeWith(inner, text),
  };
  if (isByteLevel(source)) {
    const table = byteTableOf(vocab, new Set(added.map((token) => token.content)));
    return { ...common, decode: (ids) => table.decode(ids), bytes: (id) => table.bytes(id) };
  }
  return { ...common, decode: (ids) => decodeWith(inner, ids, vocab.length) };
}

/**
 * Reads `tokenizer.json` (and `tokenizer_config.json` beside it) from a folder, or a tokenizer file by its own path.
 * Needs a file system; in a browser, fetch the JSON and use `tokenizerFromJson`.
 * @throws FILE when there is none or it cannot be read, FORMAT when it is not a tokenizer
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  // Imported here so that browser bundles hold no Node modules.
  const [{ readFile, stat }, path] = await Promise.all([import('node:fs/promises'), import('node:path')]);
  const isFile = await stat(folder).then(
    (found) => found.isFile(),
    (error: unknown) => {
      throw new MatMambaError('FILE', `cannot read ${folder}: ${messageOf(error)}`, {
        hint: 'give a folder that holds tokenizer.json, or the path of such a file',
        cause: error,
      });
    },
  );
  const file = isFile ? folder : path.join(folder, 'tokenizer.json');
  const read = async (from: string): Promise<unknown> => {
    const text = await readFile(from, 'utf8').catch((error: unknown) => {
      if (hasCode(error, 'ENOENT')) return undefined;
      throw new MatMambaError('FILE', `cannot read ${from}: ${messageOf(error)}`, { cause: error });
    });
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text) as unknown;
    } catch (error) {
      throw new MatMambaError('FORMAT', `${from} is not valid JSON: ${messageOf(error)}`, {
        hint: 'the file may be damaged or cut short: fetch it again',
        cause: error,
      });
    }
  };
  const json = await read(file);
  if (json === undefined) {
    throw new MatMambaError('FILE', `${folder} holds no tokenizer.json`, {
      hint: "name a tokenizer with --tokenizer; models with GPT-2's vocabulary use GPT-2's by themselves",
    });
  }
  const config = await read(path.join(path.dirname(file), 'tokenizer_config.json'));
  return tokenizerFromJson(json, config, path.basename(isFile ? path.dirname(path.resolve(file)) : path.resolve(folder)));
}

type JsonObject = Record<string, unknown>;

/** An added token as the file has it. */
interface AddedToken {
  readonly id: number;
  readonly content: string;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

function notATokenizer(name: string, why: string, cause?: unknown): MatMambaError {
  return new MatMambaError('FORMAT', `${name} is not a tokenizer that can be read: ${why}`, {
    hint: 'a tokenizer.json as the Hugging Face tokenizers library saves it is needed',
    cause,
  });
}

function requireTokenizer(json: unknown, name: string): JsonObject {
  if (!isObject(json)) throw notATokenizer(name, 'the top level is not an object');
  const { model } = json;
  if (!isObject(model)) throw notATokenizer(name, "it has no 'model'");
  const { type, vocab } = model;
  // The library takes an unknown type for the one that looks most like it.
  if (type !== undefined && !MODEL_TYPES.includes(type as string)) {
    throw notATokenizer(name, `models of type ${JSON.stringify(type)} are not supported`);
  }
  if (!isObject(vocab) && !Array.isArray(vocab)) throw notATokenizer(name, "its model has no 'vocab'");
  if (isObject(vocab)) {
    for (const [token, id] of Object.entries(vocab)) requireId(id, token, name);
  }
  return json;
}

function requireAddedTokens(added: unknown, name: string): AddedToken[] {
  if (added === undefined || added === null) return [];
  if (!Array.isArray(added)) throw notATokenizer(name, "'added_tokens' is not a list");
  return added.map((token: unknown) => {
    if (!isObject(token) || typeof token['content'] !== 'string') throw notATokenizer(name, 'an added token has no text');
    requireId(token['id'], token['content'], name);
    return token as unknown as AddedToken;
  });
}

/** A wild id would make the tables of the vocabulary as large as itself. */
function requireId(id: unknown, token: string, name: string): void {
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < 2 ** 24) return;
  throw notATokenizer(name, `token ${JSON.stringify(token)} has the id ${JSON.stringify(id)}`);
}

function requireConfig(config: unknown): JsonObject {
  if (config === undefined || config === null) return {};
  if (isObject(config)) return config;
  throw new MatMambaError('FORMAT', 'tokenizer_config.json is not an object');
}

function eosTokenOf(config: JsonObject): string | undefined {
  const given = config['eos_token'];
  const content = isObject(given) ? given['content'] : given;
  return typeof content === 'string' ? content : undefined;
}

function findEndToken(
  inner: HuggingFaceTokenizer,
  eosToken: string | undefined,
  added: readonly AddedToken[],
  name: string,
): number | undefined {
  if (eosToken !== undefined) {
    const id = inner.token_to_id(eosToken);
    if (id !== undefined) return id;
    throw new MatMambaError(
      'FORMAT',
      `tokenizer_config.json names the end token ${JSON.stringify(eosToken)}, which ${name} lacks`,
      {
        hint: 'the two files belong to different tokenizers, or eos_token is misspelt',
      },
    );
  }
  for (const candidate of END_TOKENS) {
    const found = added.find((token) => token.content === candidate);
    if (found) return found.id;
  }
  return undefined;
}

/** Whether a token's text is just its bytes: then pieces can be decoded one at a time. */
function isByteLevel(source: JsonObject): boolean {
  const { decoder, model } = source;
  if (!isObject(decoder) || !isObject(model)) return false;
  const steps = decoder['type'] === 'Sequence' && Array.isArray(decoder['decoders']) ? decoder['decoders'] : [decoder];
  const only: unknown = steps.length === 1 ? steps[0] : undefined;
  return isObject(only) && only['type'] === 'ByteLevel' && !model['end_of_word_suffix'];
}

function byteTableOf(vocab: readonly (string | undefined)[], added: ReadonlySet<string>): ByteTable {
  const byteOf = new Map(byteAlphabet().map((character, byte) => [character, byte]));
  const encoder = new TextEncoder();
  return new ByteTable(
    // Not `map`: the list has holes where ids are missing.
    Array.from(vocab, (token) => {
      if (token === undefined) return undefined;
      const bytes = added.has(token) ? [undefined] : Array.from(token, (character) => byteOf.get(character));
      return bytes.includes(undefined) ? encoder.encode(token) : Uint8Array.from(bytes as number[]);
    }),
  );
}

function encodeWith(inner: HuggingFaceTokenizer, text: string): Int32Array {
  if (text === '') return new Int32Array(0);
  const wellFormed = text.replace(/\p{Surrogate}/gu, '\uFFFD');
  const ids: (number | undefined)[] = inner.encode(wellFormed, { add_special_tokens: false }).ids;
  // A vocabulary without an unknown token has nothing for characters it lacks.
  return Int32Array.from(ids.filter((id) => id !== undefined));
}

function decodeWith(inner: HuggingFaceTokenizer, ids: ArrayLike<number>, vocabSize: number): string {
  const list = Array.from(ids);
  list.forEach((id, position) => requireToken(id, vocabSize, position));
  const known = list.filter((id) => inner.id_to_token(id) !== undefined);
  return known.length === 0 ? '' : inner.decode(known, { clean_up_tokenization_spaces: false, skip_special_tokens: false });
}
