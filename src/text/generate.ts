/**
 * The generation loop: prompt in, pieces of text out, over anything that turns token ids into logits.
 *
 * It knows no backend and holds no state of the model: `NextTokenModel.step` feeds ids and returns the logits after
 * the last one. The loop ends at the end token, at a stop string, at the length, by the signal, or when the consumer
 * leaves its `for await`.
 */

import { MatMambaError, refuseUnknownKeys, throwIfAborted } from '../errors.ts';
import { SAMPLER_OPTION_KEYS, Sampler, type SamplerOptions } from './sampler.ts';
import { StopMatcher } from './stop.ts';
import { StreamDecoder } from './stream-decoder.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Options of generation. Those of sampling default to plain sampling at temperature 1; `temperature: 0` is greedy. */
export interface GenerateOptions extends SamplerOptions {
  /** The most tokens to generate. Default 64. */
  maxNewTokens?: number | undefined;
  /** Generation ends before the first of these; they are not shown. */
  stop?: string | readonly string[] | undefined;
  /** Ends generation with `ABORTED` at the next step. */
  signal?: AbortSignal | undefined;
  /** The model's width: dims = D / mrlLevel. Read by the model, not by the loop. */
  mrlLevel?: number | undefined;
  /** The model's width in dims, for all layers or one per layer. Read by the model, not by the loop. */
  mixnmatchDims?: number | readonly number[] | undefined;
  /** Used in place of the model's tokenizer. */
  tokenizer?: Tokenizer | undefined;
  /** Goes on after the end token, whose text is then shown like any other. */
  ignoreEnd?: boolean | undefined;
}

export const GENERATE_OPTION_KEYS = [
  'maxNewTokens',
  ...SAMPLER_OPTION_KEYS,
  'stop',
  'signal',
  'mrlLevel',
  'mixnmatchDims',
  'tokenizer',
  'ignoreEnd',
] as const;

/** Why generation ended: `maxNewTokens` were made, the end token came, or a stop string. */
export type FinishReason = 'length' | 'end' | 'stop';

/** Text that is ready to be shown, and the ids generated since the last piece. */
export interface GeneratedPiece {
  /** Whole characters only. Never empty but in the last piece. */
  readonly text: string;
  /** Without the end token that ended generation; with the tokens of a stop string, whose text is not shown. */
  readonly ids: readonly number[];
  /** On the last piece only. */
  readonly finishReason?: FinishReason;
}

/** How a device draws a token; as `Sampler` does. */
export interface DeviceDraw extends Pick<Sampler, 'temperature' | 'topK' | 'topP' | 'minP' | 'seed'> {
  /** Ids from here on are never drawn. */
  readonly usable: number;
  /** Draws before this one. */
  readonly index: number;
}

/** What generates: a model with the state of one sequence. */
export interface NextTokenModel {
  readonly vocabSize: number;
  /** Feeds ids as `step` does and draws the next one where the logits are; absent where only the host draws. */
  draw?(ids: Int32Array, how: DeviceDraw, signal?: AbortSignal): Promise<number>;
  /** Feeds ids (T >= 1) after those fed before; returns the logits (V) of the token that follows the last one. */
  step(ids: Int32Array, signal?: AbortSignal): Promise<Float32Array>;
}

const DEFAULT_MAX_NEW_TOKENS = 64;

/**
 * Generates text token by token; every piece is yielded before the next step of the model begins. The last piece
 * carries `finishReason`. Without a tokenizer the prompt is ids and every piece has one id and no text.
 * @throws OPTION for an unknown option or one out of range
 * @throws TOKEN for an empty prompt, ids outside the vocabulary, or text without a tokenizer
 * @throws WEIGHTS when the model's logits are not finite
 * @throws ABORTED when the signal fires
 */
export async function* generate(
  model: NextTokenModel,
  tokenizer: Tokenizer | undefined,
  prompt: string | ArrayLike<number>,
  options: GenerateOptions = {},
): AsyncGenerator<GeneratedPiece, void, undefined> {
  refuseUnknownKeys(options, GENERATE_OPTION_KEYS, 'generate');
  const { maxNewTokens = DEFAULT_MAX_NEW_TOKENS, signal, ignoreEnd = false } = options;
  if (!Number.isSafeInteger(maxNewTokens) || maxNewTokens < 1) {
    throw new MatMambaError('OPTION', `maxNewTokens is ${String(maxNewTokens)}`, {
      hint: 'maxNewTokens is a whole number of at least 1',
    });
  }
  const words = options.tokenizer ?? tokenizer;
  const output = new OutputText(words, options.stop);
  const usable = Math.min(model.vocabSize, words?.vocabSize ?? Infinity);
  const sampler = new Sampler(pickSamplerOptions(options), usable);
  const { temperature, topK, topP, minP, seed } = sampler;
  const draw = { temperature, topK, topP, minP, seed, usable };
  let fed = promptIds(prompt, words, model.vocabSize);
  const history = Array.from(fed);
  const end = ignoreEnd ? undefined : words?.endTokenId;

  for (let made = 1; ; made++) {
    const id =
      model.draw && drawsOnDevice(sampler)
        ? await abortable(model.draw(fed, { ...draw, index: made - 1 }, signal), signal)
        : sampler.sample(await step(model, fed, signal), history);
    if (id === end) {
      yield output.finish('end');
      return;
    }
    history.push(id);
    const piece = output.push(id, made === maxNewTokens);
    if (piece) yield piece;
    if (piece?.finishReason) return;
    fed = Int32Array.of(id);
  }
}

/** The penalty needs the history; devices take seeds of 32 bits. */
function drawsOnDevice({ repetitionPenalty, seed }: Sampler): boolean {
  return repetitionPenalty === 1 && seed < 2 ** 32;
}

/** What the model does, with the signal looked at afterwards: what it cut short may fail in any way. */
async function abortable<R>(work: Promise<R>, signal: AbortSignal | undefined): Promise<R> {
  try {
    return await work;
  } finally {
    throwIfAborted(signal);
  }
}

/** One step of the model, with the signal looked at before and after. */
async function step(model: NextTokenModel, ids: Int32Array, signal: AbortSignal | undefined): Promise<Float32Array> {
  throwIfAborted(signal);
  const logits = await abortable(model.step(ids, signal), signal);
  if (logits.length !== model.vocabSize) {
    throw new MatMambaError('SHAPE', `expected logits (${model.vocabSize}), got (${logits.length})`);
  }
  return logits;
}

/** Turns generated ids into pieces: joins unfinished characters, watches for stop strings, gathers ids. */
class OutputText {
  readonly #decoder: StreamDecoder | undefined;
  readonly #matcher: StopMatcher;
  #ids: number[] = [];

  constructor(tokenizer: Tokenizer | undefined, stop: string | readonly string[] | undefined) {
    const stops = stop === undefined ? [] : typeof stop === 'string' ? [stop] : stop;
    if (!Array.isArray(stops))
      throw new MatMambaError('OPTION', `stop is ${String(stop)}`, { hint: 'stop is a string or a list of strings' });
    if (stops.length > 0 && !tokenizer) throw withoutTokenizer('stop strings');
    this.#matcher = new StopMatcher(stops);
    this.#decoder = tokenizer ? new StreamDecoder(tokenizer) : undefined;
  }

  /** Takes the next id; returns a piece when there is text to show or the text is over. */
  push(id: number, isLast: boolean): GeneratedPiece | undefined {
    this.#ids.push(id);
    const { text, stopped } = this.#matcher.push(this.#decoder?.push(id) ?? '');
    if (stopped) return this.#piece(text, 'stop');
    if (isLast) return this.finish('length', text);
    return text === '' && this.#decoder ? undefined : this.#piece(text);
  }

  /** The last piece: with everything that was held back, unless that completes a stop string. */
  finish(reason: FinishReason, text = ''): GeneratedPiece {
    const { text: rest, stopped } = this.#matcher.push(this.#decoder?.flush() ?? '');
    return stopped ? this.#piece(text + rest, 'stop') : this.#piece(text + rest + this.#matcher.flush(), reason);
  }

  #piece(text: string, finishReason?: FinishReason): GeneratedPiece {
    const ids = this.#ids;
    this.#ids = [];
    return finishReason ? { text, ids, finishReason } : { text, ids };
  }
}

function pickSamplerOptions(options: GenerateOptions): SamplerOptions {
  return Object.fromEntries(SAMPLER_OPTION_KEYS.map((key) => [key, options[key]]));
}

/** The prompt as ids of the model's vocabulary. */
function promptIds(prompt: string | ArrayLike<number>, tokenizer: Tokenizer | undefined, vocabSize: number): Int32Array {
  if (typeof prompt === 'string' && !tokenizer) throw withoutTokenizer('a prompt of text');
  const given = typeof prompt === 'string' ? tokenizer!.encode(prompt) : prompt;
  if (given.length === 0) {
    throw new MatMambaError('TOKEN', 'the prompt is empty', {
      hint: "give at least one token; the tokenizer's end token serves as the start of a new text",
    });
  }
  for (let position = 0; position < given.length; position++) {
    const id = given[position]!;
    if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new MatMambaError(
      'TOKEN',
      `token id ${id} at position ${position} of the prompt is outside the vocabulary of ${vocabSize}`,
      {
        hint:
          typeof prompt === 'string'
            ? `the tokenizer (${tokenizer!.name}) belongs to another model`
            : `ids are whole numbers from 0 to ${vocabSize - 1}`,
      },
    );
  }
  return Int32Array.from(given);
}

function withoutTokenizer(what: string): MatMambaError {
  return new MatMambaError('TOKEN', `${what} needs a tokenizer, and this model has none`, {
    hint: 'pass one as the option tokenizer (--tokenizer), or give token ids',
  });
}
