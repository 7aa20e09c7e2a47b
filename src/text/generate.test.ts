import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { type GenerateOptions, type GeneratedPiece, type NextTokenModel, generate } from './generate.ts';
import { type Tokenizer, tokenizerFromJson } from './tokenizer.ts';

const V = 480; // padded past the tokenizer's 477
let tokenizer: Tokenizer;

beforeAll(async () => {
  tokenizer = tokenizerFromJson(JSON.parse(await readFile(new URL('./fixtures/byte-level.json', import.meta.url), 'utf8')));
});

/** Says a fixed text whatever it is fed, then ends; the padding is always likelier than any token. */
class Speaker implements NextTokenModel {
  readonly vocabSize = V;
  readonly fed: number[][] = [];
  readonly #ids: number[];

  constructor(text: string) {
    this.#ids = [...tokenizer.encode(text)];
  }

  async step(ids: Int32Array): Promise<Float32Array> {
    const logits = new Float32Array(V).fill(-1e4);
    logits[this.#ids[this.fed.length] ?? tokenizer.endTokenId!] = 5;
    logits.fill(9, 477);
    this.fed.push([...ids]);
    return logits;
  }
}

async function collect(
  stream: AsyncIterable<GeneratedPiece>,
): Promise<{ text: string; ids: number[]; pieces: GeneratedPiece[] }> {
  const pieces: GeneratedPiece[] = [];
  for await (const piece of stream) pieces.push(piece);
  return { text: pieces.map((p) => p.text).join(''), ids: pieces.flatMap((p) => p.ids), pieces };
}

function say(text: string, options: GenerateOptions = {}) {
  return collect(generate(new Speaker(text), tokenizer, 'Once', options));
}

describe('generate', () => {
  it('streams whole characters and ends at the end token', async () => {
    const text = 'the sea 😀 漢字 was é.';
    const { text: shown, ids, pieces } = await say(text, { maxNewTokens: 100 });
    expect(shown).toBe(text);
    expect(ids).toEqual([...tokenizer.encode(text)]);
    expect(pieces.filter((p) => p.finishReason)).toEqual([pieces.at(-1)]);
    expect(pieces.at(-1)).toEqual({ text: '', ids: [], finishReason: 'end' });
    for (const piece of pieces.slice(0, -1)) expect(piece.text).not.toBe('');
    for (const piece of pieces) expect(!/[\p{Surrogate}\ufffd]/u.test(piece.text)).toBe(true);
  });

  it('feeds the prompt at once, then one token a step, and no step too many', async () => {
    const model = new Speaker('abcdefgh');
    const { pieces, ids } = await collect(generate(model, tokenizer, 'Once', { maxNewTokens: 3, temperature: 0 }));
    expect(model.fed).toEqual([[...tokenizer.encode('Once')], [ids[0]], [ids[1]]]);
    expect(ids).toHaveLength(3);
    expect(pieces.at(-1)?.finishReason).toBe('length');
  });

  it('makes 64 tokens unless told otherwise', async () => {
    expect((await say('x'.repeat(200))).ids).toHaveLength(64);
  });

  it('shows what is left of an unfinished character at the end', async () => {
    const before = tokenizer.encode('😀').length - 1;
    expect((await say('😀', { maxNewTokens: before })).text).toBe('\ufffd');
  });

  it('stops before a stop string, also one that the last bytes complete', async () => {
    const { text, pieces } = await say('one. Two. END three', { stop: ['END', 'never'] });
    expect(text).toBe('one. Two. ');
    expect(pieces.at(-1)?.finishReason).toBe('stop');
    expect((await say('one. Two', { stop: 'Twoo' })).text).toBe('one. Two');
    const cut = tokenizer.encode('a😀').length - 1;
    expect((await say('a😀', { stop: '\ufffd', maxNewTokens: cut })).pieces.at(-1)).toMatchObject({
      text: '',
      finishReason: 'stop',
    });
  });

  it('goes on after the end token when asked', async () => {
    const { text, ids, pieces } = await say('a', { ignoreEnd: true, maxNewTokens: 3 });
    expect(text).toBe('a<|endoftext|><|endoftext|>');
    expect(ids).toEqual([...tokenizer.encode('a'), 0, 0]);
    expect(pieces.at(-1)?.finishReason).toBe('length');
  });

  it('repeats under a seed', async () => {
    const model = (): NextTokenModel => ({ vocabSize: V, step: async () => new Float32Array(V) });
    const run = (seed: number) =>
      collect(generate(model(), tokenizer, [1, 2], { seed, maxNewTokens: 30, ignoreEnd: true, topP: 0.9 }));
    const first = await run(4);
    expect(await run(4)).toEqual(first);
    expect((await run(5)).ids).not.toEqual(first.ids);
    expect(Math.max(...first.ids)).toBeLessThan(477);
    expect(tokenizer.decode(first.ids)).toBe(first.text);
  });

  it('counts the prompt as seen for the repetition penalty', async () => {
    const model: NextTokenModel = {
      vocabSize: V,
      step: async () => Float32Array.from({ length: V }, (_, id) => (id < 4 ? 10 - id : 0)),
    };
    const { ids } = await collect(generate(model, tokenizer, [0], { temperature: 0, repetitionPenalty: 5, maxNewTokens: 3 }));
    expect(ids).toEqual([1, 2, 3]);
  });

  it('works on ids without a tokenizer', async () => {
    const { ids, pieces } = await collect(generate(new Speaker('abc'), undefined, [3], { maxNewTokens: 2, temperature: 0 }));
    expect(ids).toEqual([477, 477]); // nothing says where the padding begins
    expect(pieces).toEqual([
      { text: '', ids: [477] },
      { text: '', ids: [477], finishReason: 'length' },
    ]);
    const given = collect(generate(new Speaker('abc'), undefined, 'x', { tokenizer, maxNewTokens: 3 }));
    expect((await given).text).toBe('abc');
    await expect(collect(generate(new Speaker(''), undefined, 'x'))).rejects.toMatchObject({ code: 'TOKEN' });
    await expect(collect(generate(new Speaker(''), undefined, [1], { stop: 'x' }))).rejects.toMatchObject({ code: 'TOKEN' });
  });

  it('refuses prompts that are empty or not of the vocabulary', async () => {
    const run = (prompt: string | number[]) => collect(generate(new Speaker('a'), tokenizer, prompt));
    await expect(run('')).rejects.toMatchObject({ code: 'TOKEN', hint: expect.stringContaining('at least one token') as string });
    await expect(run([])).rejects.toMatchObject({ code: 'TOKEN' });
    for (const id of [V, -1, 0.5, NaN]) {
      await expect(run([1, 2, id])).rejects.toMatchObject({
        code: 'TOKEN',
        message: expect.stringContaining('position 2') as string,
      });
    }
    const small: NextTokenModel = { vocabSize: 8, step: async () => new Float32Array(8) };
    await expect(collect(generate(small, tokenizer, 'words'))).rejects.toMatchObject({
      code: 'TOKEN',
      hint: expect.stringContaining('another model') as string,
    });
  });

  it('refuses wrong options', async () => {
    await expect(say('a', { maxTokens: 3 } as GenerateOptions)).rejects.toMatchObject({ code: 'OPTION' });
    await expect(say('a', { temprature: 3 } as GenerateOptions)).rejects.toMatchObject({ hint: "did you mean 'temperature'?" });
    for (const options of [
      { maxNewTokens: 0 },
      { maxNewTokens: 1.5 },
      { topP: 7 },
      { stop: '' },
      { stop: 5 as unknown as string },
    ]) {
      await expect(say('a', options)).rejects.toMatchObject({ code: 'OPTION' });
    }
    expect((await say('a', { topK: undefined, stop: undefined, signal: undefined, mrlLevel: 2, mixnmatchDims: [4] })).text).toBe(
      'a',
    );
  });

  it('refuses logits of another shape', async () => {
    const wrong: NextTokenModel = { vocabSize: V, step: async () => new Float32Array(3) };
    await expect(collect(generate(wrong, tokenizer, 'a'))).rejects.toMatchObject({ code: 'SHAPE' });
  });

  it('ends with ABORTED at the next step, also when the step itself fails by it', async () => {
    const controller = new AbortController();
    const model = new Speaker('abcdefgh');
    const shown: string[] = [];
    const run = async (): Promise<void> => {
      for await (const piece of generate(model, tokenizer, 'x', { signal: controller.signal })) {
        shown.push(piece.text);
        if (shown.length === 2) controller.abort();
      }
    };
    await expect(run()).rejects.toMatchObject({ code: 'ABORTED' });
    expect(shown).toHaveLength(2);
    expect(model.fed).toHaveLength(2);

    const late = new AbortController();
    const failing: NextTokenModel = {
      vocabSize: V,
      step: async () => {
        late.abort();
        throw new Error('cut short');
      },
    };
    await expect(collect(generate(failing, tokenizer, 'x', { signal: late.signal }))).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(collect(generate(failing, tokenizer, 'x'))).rejects.toThrow('cut short');
    await expect(collect(generate(model, tokenizer, 'x', { signal: AbortSignal.abort() }))).rejects.toMatchObject({
      code: 'ABORTED',
    });
  });

  it('lets the consumer leave at any time', async () => {
    let cleaned = false;
    const model = new Speaker('abcdefgh');
    async function* wrapped(): AsyncGenerator<GeneratedPiece> {
      try {
        yield* generate(model, tokenizer, 'x');
      } finally {
        cleaned = true;
      }
    }
    for await (const piece of wrapped()) {
      expect(piece.text).toBe('a');
      break;
    }
    expect(cleaned).toBe(true);
    expect(model.fed).toHaveLength(1);
  });
});
