/** Page and engine in one process: requests, events, aborts and errors, with a model behind a URL. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serveFolder } from '../../scripts/static-server.mjs';
import { MatMambaLMHeadModel, tensor } from '../index.ts';
import { Engine, type EngineLanguageModel, type EnginePort } from './engine.ts';
import { EngineHost } from './engine-host.ts';
import type { FromEngine, ToEngine } from './protocol.ts';

/** What a worker does with messages: copies them, and brings them later. */
function connect(): EnginePort {
  const listeners: ((event: { data: FromEngine }) => void)[] = [];
  const later = (run: () => void): void => void setTimeout(run);
  const host = new EngineHost((message) => {
    const data = structuredClone(message);
    later(() => listeners.forEach((listener) => listener({ data })));
  });
  return {
    postMessage(message: ToEngine) {
      const data = structuredClone(message);
      later(() => host.receive(data));
    },
    addEventListener(type: 'message' | 'error', listener: never) {
      if (type === 'message') listeners.push(listener);
    },
    terminate() {},
  };
}

const PROMPT = 'It was a quiet evening, and';
const DIMS = [384, 288, 192, 96, 96, 192, 288, 384];

describe('engine', () => {
  const engine = new Engine(connect());
  let server: Awaited<ReturnType<typeof serveFolder>>;
  let lm: EngineLanguageModel;
  const files = new Set<string>();

  beforeAll(async () => {
    server = await serveFolder('models');
    lm = await engine.languageModel(`${server.url}books-10m/`, {
      dtype: 'bf16',
      threads: 1,
      onProgress: ({ file = 'weights' }) => files.add(file),
    });
  });
  afterAll(async () => {
    await lm.dispose();
    engine.dispose();
    await server.close();
  });

  test('tells what it loads and what it has loaded', async () => {
    expect([...files]).toEqual(['config.json', 'model.safetensors', 'weights', 'tokenizer.json']);
    const { dModel, nLayer, parameters, parameterCount, widthStep, memory } = lm.info;
    expect({ dModel, nLayer, widthStep }).toEqual({ dModel: 384, nLayer: 8, widthStep: 6 });
    // 64 steps in each of 8 layers are the whole model.
    expect(parameters.fixed + 64 * 8 * parameters.perStep).toBeCloseTo(parameterCount, 6);
    expect(memory.weightBytes).toBeGreaterThan(19e6);
    expect((await engine.devices()).map(({ device }) => device)).toContain('cpu');
  });

  test('writes and measures as the model itself does', async () => {
    const options = { maxNewTokens: 24, temperature: 0, mixnmatchDims: DIMS };
    let text = '';
    let ms = 0;
    for await (const piece of lm.generate(PROMPT, options)) {
      text += piece.text;
      expect(piece.ms).toBeGreaterThanOrEqual(ms);
      ({ ms } = piece);
    }
    await using plain = await MatMambaLMHeadModel.fromPretrained('models/books-10m', { dtype: 'bf16', threads: 1, blas: 'off' });
    let expected = '';
    for await (const piece of plain.generate(PROMPT, options)) expected += piece.text;
    expect(text).toBe(expected);

    const ids = Array.from(plain.tokenizer!.encode('The captain looked over the side of the ship and saw nothing but the sea.'));
    const losses = await plain.loss(
      tensor(Int32Array.from(ids.slice(0, -1)), [1, ids.length - 1]),
      tensor(Int32Array.from(ids.slice(1)), [1, ids.length - 1]),
      { mrlLevel: 4 },
    );
    const mean = ((await losses.data()) as Float32Array).reduce((sum, loss) => sum + loss, 0) / (ids.length - 1);
    expect(await lm.loss(ids, 256, { mrlLevel: 4 })).toBeCloseTo(mean, 5);
  });

  test('gives its files, which are a model again, in the engine or in a folder', async () => {
    const files = await lm.files();
    expect(Object.keys(files).slice(0, 3)).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    const again = await engine.languageModel(files, { dtype: 'bf16', threads: 1 });
    const write = async (model: EngineLanguageModel): Promise<string> => {
      let text = '';
      for await (const piece of model.generate(PROMPT, { maxNewTokens: 8, temperature: 0 })) text += piece.text;
      return text;
    };
    expect(await write(again)).toBe(await write(lm));
    await again.dispose();
  });

  test('stops by the signal or when the loop is left, and goes on with other requests', async () => {
    const controller = new AbortController();
    const run = async (): Promise<void> => {
      for await (const { ids } of lm.generate(PROMPT, { maxNewTokens: 5000, ignoreEnd: true, signal: controller.signal }))
        if (ids.length > 0) controller.abort();
    };
    await expect(run()).rejects.toMatchObject({ name: 'MatMambaError', code: 'ABORTED' });
    let count = 0;
    for await (const _ of lm.generate(PROMPT, { maxNewTokens: 5000, ignoreEnd: true })) if (++count === 3) break;
    expect(await lm.loss([5, 6, 7, 8], 256)).toBeGreaterThan(0);
  });

  test('errors keep their codes and hints', async () => {
    await expect(lm.loss([1, 2, 99_999], 256)).rejects.toMatchObject({ code: 'TOKEN' });
    await expect(lm.loss([1, 2, 3], 256, { mixnmatchDims: 100 })).rejects.toMatchObject({
      code: 'WIDTH',
      hint: expect.stringContaining('96 or 102'),
    });
    await expect(engine.languageModel(`${server.url}none/`)).rejects.toMatchObject({ code: 'FILE' });
    await expect(engine.visionModel({ config: { dModel: 33 }, seed: 0 })).rejects.toMatchObject({ name: 'MatMambaError' });
  });

  test('classifies', async () => {
    const config = { dModel: 64, nLayer: 2, imageSize: 16, patchSize: 8, nClasses: 5 };
    const vision = await engine.visionModel({ config, seed: 3 }, { threads: 1 });
    const { scores } = await vision.classify(new Float32Array(3 * 16 * 16).fill(0.5), { mrlLevel: 2 });
    expect(scores.length).toBe(5);
    await vision.dispose();
    await expect(vision.classify(new Float32Array(3 * 16 * 16))).rejects.toMatchObject({ code: 'DISPOSED' });
  });
});
