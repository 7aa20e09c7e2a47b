/** What calls accept and refuse, which width wins, what happens under concurrency, abort and disposal. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { perturbed, randomFloats, randomIds } from '../../test/support/reference-model.ts';
import { relativeError } from '../../test/support/run-case.ts';
import {
  type MambaConfig,
  MatMamba2,
  MatMamba2Vision,
  MatMambaError,
  MatMambaLMHeadModel,
  type Tensor,
  type WidthOptions,
  tensor,
} from '../index.ts';

const OPTIONS = { threads: 2 } as const;
const CONFIG: Partial<MambaConfig> = { dModel: 64, nLayer: 2, vocabSize: 48, ssmCfg: { dState: 16 } };
const code = (name: string): object => expect.objectContaining({ name: 'MatMambaError', code: name });

let lm: MatMambaLMHeadModel;
let block: MatMamba2;
let vision: MatMamba2Vision;
const ids = tensor(randomIds(2 * 12, 48, 1), [2, 12]);
const x = tensor(randomFloats(2 * 12 * 64, 2), [2, 12, 64]);
const images = tensor(randomFloats(2 * 3 * 16 * 16, 3), [2, 3, 16, 16]);

beforeAll(async () => {
  lm = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
  await lm.loadStateDict(perturbed(lm.stateDict(), 4));
  block = await MatMamba2.create({ dModel: 64, dState: 16 }, OPTIONS);
  vision = await MatMamba2Vision.create(
    { dModel: 64, nLayer: 2, nClasses: 5, patchSize: 8, imageSize: 16, ssmCfg: { dState: 16 } },
    OPTIONS,
  );
  await vision.loadStateDict(perturbed(vision.stateDict(), 5));
});
afterAll(async () => {
  await Promise.all([lm.dispose(), block.dispose(), vision.dispose()]);
});

async function logits(options: WidthOptions = {}): Promise<Float32Array> {
  return (await lm.forward(ids, options)).logits.toFloat32();
}

describe('widths', () => {
  test("a call's mixnmatchDims wins over its mrlLevel, and both over the layers' flags", async () => {
    const [first, second] = lm.backbone.layers.map(({ mixer }) => mixer) as [
      { mixnmatch: boolean; mixnmatchDims: number },
      { mixnmatch: boolean; mixnmatchDims: number },
    ];
    const full = await logits();
    const level4 = await logits({ mrlLevel: 4 });
    const mixed = await logits({ mixnmatchDims: [20, 64] });
    expect(relativeError(full, level4)).toBeGreaterThan(1e-3);
    expect(relativeError(full, mixed)).toBeGreaterThan(1e-3);
    expect(await logits({ mixnmatchDims: 16 })).toEqual(level4);
    expect(await logits({ mixnmatchDims: [20, 64], mrlLevel: 4 })).toEqual(mixed);
    first.mixnmatchDims = 20;
    expect(await logits(), 'dims without the flag').toEqual(full);
    first.mixnmatch = true;
    try {
      expect(await logits(), 'flag').toEqual(mixed);
      expect(await logits({ mrlLevel: 4 }), 'level over flag').toEqual(level4);
      expect(await logits({ mrlLevel: 1 }), 'level over flag').toEqual(full);
      expect(await logits({ mixnmatchDims: [64, 64] }), 'dims over flag').toEqual(full);
      second.mixnmatch = true;
      second.mixnmatchDims = 7.5;
      await expect(logits()).rejects.toThrow(/backbone\.layers\.1\.mixer/);
    } finally {
      Object.assign(first, { mixnmatch: false, mixnmatchDims: 64 });
      Object.assign(second, { mixnmatch: false, mixnmatchDims: 64 });
    }
    block.mixnmatch = true;
    block.mixnmatchDims = 16;
    expect((await block.forward(x)).toFloat32()).toEqual((await block.forward(x, { mrlLevel: 4 })).toFloat32());
    block.mixnmatch = false;
    vision.layers[1]!.mixer.mixnmatch = true;
    vision.layers[1]!.mixer.mixnmatchDims = 8;
    expect((await vision.forward(images)).toFloat32()).toEqual(
      (await vision.forward(images, { mixnmatchDims: [64, 8] })).toFloat32(),
    );
    vision.layers[1]!.mixer.mixnmatch = false;
  });

  test('calls of many widths at once give what they give one after another', async () => {
    const widths: WidthOptions[] = [
      {},
      { mrlLevel: 2 },
      { mrlLevel: 4 },
      { mrlLevel: 8 },
      { mixnmatchDims: 3 },
      { mixnmatchDims: [64, 1] },
      { mixnmatchDims: [1, 64] },
    ];
    const alone = [];
    for (const width of widths) alone.push(await logits(width));
    const together = await Promise.all([...widths, ...widths.toReversed()].map((width) => logits(width)));
    for (const [i, one] of alone.entries()) {
      expect(together[i]).toEqual(one);
      expect(together[2 * widths.length - 1 - i]).toEqual(one);
    }
    const blocks = await Promise.all(widths.slice(0, 5).map((width) => block.forward(x, width)));
    for (const [i, width] of widths.slice(0, 5).entries())
      expect(blocks[i]!.toFloat32()).toEqual((await block.forward(x, width)).toFloat32());
  });

  test('flags are read when the call is made', async () => {
    const narrow = (await block.forward(x, { mixnmatchDims: 16 })).toFloat32();
    block.mixnmatch = true;
    block.mixnmatchDims = 16;
    const call = block.forward(x);
    block.mixnmatchDims = 64;
    block.mixnmatch = false;
    expect((await call).toFloat32()).toEqual(narrow);
  });

  test('widths that do not exist are refused with the nearest ones', async () => {
    await expect(logits({ mrlLevel: 3 })).rejects.toMatchObject(code('WIDTH'));
    await expect(logits({ mrlLevel: 3 })).rejects.toThrow(/1, 2, 4, 8, 16/);
    for (const mrlLevel of [0, -1, 1.5, NaN, 128, Infinity])
      await expect(logits({ mrlLevel }), String(mrlLevel)).rejects.toMatchObject(code('WIDTH'));
    for (const mixnmatchDims of [0, -4, 65, 2.5, NaN, Infinity, [64], [64, 64, 64], [64, 0], []]) {
      await expect(logits({ mixnmatchDims }), JSON.stringify(mixnmatchDims)).rejects.toMatchObject(code('WIDTH'));
      await expect(vision.forward(images, { mixnmatchDims })).rejects.toMatchObject(code('WIDTH'));
    }
    await using odd = await MatMamba2.create({ dModel: 160, dState: 8 }, OPTIONS);
    const wide = tensor(new Float32Array(160), [1, 1, 160]);
    await expect(odd.forward(wide, { mixnmatchDims: 12 })).rejects.toThrow(/nearest are 10 or 15/);
    await expect(odd.forward(wide, { mixnmatchDims: 200 })).rejects.toThrow(/160/);
    await expect(odd.forward(wide, { mrlLevel: 64 })).rejects.toMatchObject(code('WIDTH'));
  });
});

describe('inputs', () => {
  test('shapes and element types', async () => {
    const wrong: [Promise<unknown>, RegExp][] = [
      [block.forward(tensor(new Float32Array(16 * 32), [2, 8, 32])), /expected \(B, T, 64\), got \(2, 8, 32\)/],
      [block.forward(tensor(new Float32Array(64), [64])), /expected \(B, T, 64\)/],
      [block.forward(tensor(new Float32Array(0), [0, 4, 64])), /expected \(B, T, 64\)/],
      [block.forward(tensor(new Int32Array(64), [1, 1, 64])), /float32, got i32/],
      [block.forward(new Float32Array(64) as unknown as Tensor), /no Tensor/],
      [lm.forward(tensor(new Int32Array(4), [4])), /expected \(B, T\)/],
      [lm.forward(tensor(new Float32Array(4), [1, 4])), /int32, got f32/],
      [lm.forward([[1, 2]] as unknown as Tensor), /no Tensor/],
      [vision.forward(tensor(new Float32Array(3 * 8 * 8), [1, 3, 8, 8])), /expected \(B, 3, 16, 16\), got \(1, 3, 8, 8\)/],
      [vision.forward(tensor(new Float32Array(4 * 16 * 16), [1, 4, 16, 16])), /expected \(B, 3, 16, 16\)/],
      [lm.loss(ids, tensor(new Int32Array(4), [2, 2])), /expected \(2, 12\), got \(2, 2\)/],
      [lm.loss(ids, undefined as unknown as Tensor), /no Tensor/],
      [lm.loss(ids, tensor(new Float32Array(24), [2, 12])), /int32, got f32/],
    ];
    for (const [call, message] of wrong) {
      await expect(call).rejects.toMatchObject(code('SHAPE'));
      await expect(call).rejects.toThrow(message);
    }
  });

  test('ids outside the vocabulary and empty prompts', async () => {
    await expect(lm.forward(tensor(Int32Array.of(1, 48), [1, 2]))).rejects.toThrow(
      /48 at \(0, 1\) is outside the vocabulary of 48/,
    );
    await expect(lm.forward(tensor(Int32Array.of(1, 2, -1, 3), [2, 2]))).rejects.toThrow(/-1 at \(1, 0\)/);
    await expect(lm.forward(tensor(BigInt64Array.of(1n, 2n ** 32n), [1, 2]))).rejects.toMatchObject(code('TOKEN'));
    await expect(lm.forward(tensor(new Int32Array(0), [1, 0]))).rejects.toThrow(/empty/);
    await expect(lm.loss(ids, tensor(new Int32Array(24).fill(-2), [2, 12]))).rejects.toMatchObject(code('TOKEN'));
    const same = await lm.forward(tensor(BigInt64Array.from(ids.array as Int32Array, BigInt), [2, 12]));
    expect(same.logits.toFloat32()).toEqual(await logits());
    await expect(lm.generate(new Int32Array(0)).next()).rejects.toMatchObject(code('TOKEN'));
    await expect(lm.generate([1, 99]).next()).rejects.toMatchObject(code('TOKEN'));
  });

  test('bf16 and f16 inputs are read as the numbers they are', async () => {
    const rounded = x.to('bf16');
    const expected = await block.forward(tensor(rounded.toFloat32(), x.shape));
    expect((await block.forward(rounded)).toFloat32()).toEqual(expected.toFloat32());
  });

  test('results are copies of their own', async () => {
    const first = await lm.forward(ids);
    const before = first.logits.toFloat32().slice();
    await logits({ mrlLevel: 8 });
    expect(first.logits.toFloat32()).toEqual(before);
    first.logits.toFloat32().fill(0);
    expect(await logits()).toEqual(before);
    first.logits.dispose();
    expect(() => first.logits.array).toThrow(code('DISPOSED'));
  });

  test('options that do not exist', async () => {
    await expect(lm.forward(ids, { mrlLevels: 2 } as object)).rejects.toThrow(/did you mean 'mrlLevel'/);
    await expect(lm.loss(ids, ids, { lengths: [1, 2] } as object)).rejects.toMatchObject(code('OPTION'));
    await expect(block.forward(x, { mixnmatchdims: 2 } as object)).rejects.toThrow(/did you mean 'mixnmatchDims'/);
    await expect(vision.forward(images, { returnFeature: true } as object)).rejects.toThrow(/did you mean 'returnFeatures'/);
    await expect(MatMambaLMHeadModel.create(CONFIG, { sede: 1 } as object)).rejects.toThrow(/did you mean 'seed'/);
    await expect(MatMambaLMHeadModel.create(CONFIG, { dtype: 'bf61' as 'bf16' })).rejects.toThrow(/did you mean 'bf16'/);
    await expect(MatMambaLMHeadModel.create(CONFIG, { device: 'cpv' as 'cpu' })).rejects.toThrow(/did you mean 'cpu'/);
    for (const threads of [0, -1, 1.5, 1000])
      await expect(MatMamba2.create({ dModel: 32 }, { threads })).rejects.toMatchObject(code('OPTION'));
    await expect(MatMamba2.create({ dModel: 32 }, { blas: '/no/such/library.so' })).rejects.toMatchObject(code('DEVICE'));
  });
});

describe('configs', () => {
  test('misspelt keys name the nearest one', async () => {
    await expect(MatMambaLMHeadModel.create({ ...CONFIG, nLayers: 2 } as object)).rejects.toThrow(/did you mean 'nLayer'/);
    await expect(MatMambaLMHeadModel.create({ ...CONFIG, ssmCfg: { dSate: 2 } as object })).rejects.toThrow(
      /did you mean 'dState'/,
    );
    await expect(MatMamba2.create({ dModel: 32, d_state: 8 } as object)).rejects.toThrow(/did you mean 'dState'/);
    await expect(MatMamba2Vision.create({ nClases: 2 } as object)).rejects.toThrow(/did you mean 'nClasses'/);
    await expect(MatMamba2.create({})).rejects.toMatchObject(code('OPTION'));
  });

  test('values that are not supported', async () => {
    const refused: Partial<MambaConfig>[] = [
      { dModel: 100 },
      { dModel: 0 },
      { dModel: -32 },
      { dModel: NaN },
      { nLayer: 0 },
      { nLayer: 1.5 },
      { vocabSize: 0 },
      { vocabSize: '48' as unknown as number },
      { padVocabSizeMultiple: 0 },
      { dIntermediate: -1 },
      { dIntermediate: 1.5 },
      { dIntermediate: NaN },
      { attnLayerIdx: [1] },
      { tieEmbeddings: 1 as unknown as boolean },
      { ssmCfg: { expand: 4 } },
      { ssmCfg: { ngroups: 2 } },
      { ssmCfg: { dSsm: 64 } },
      { ssmCfg: { dConv: 5 } },
      { ssmCfg: { dConv: 1 } },
      { ssmCfg: { dState: 0 } },
      { ssmCfg: { dState: 2.5 } },
      { ssmCfg: { dtLimit: [0.1, 0.01] } },
      { ssmCfg: { dtLimit: [0.1] as unknown as [number, number] } },
      { ssmCfg: { AInitRange: [0, 16] } },
      { ssmCfg: { dtMin: 0 } },
      { ssmCfg: { dtInitFloor: 0 } },
      { ssmCfg: { convInit: NaN } },
      { ssmCfg: { projDropRate: 1 } },
      { ssmCfg: null as unknown as object },
    ];
    for (const one of refused) {
      const call = MatMambaLMHeadModel.create({ ...CONFIG, ...one }, OPTIONS).then((model) => model.dispose());
      await expect(call, JSON.stringify(one)).rejects.toMatchObject(code('CONFIG'));
    }
    for (const one of [{ pool: 'max' as 'cls' }, { imageSize: 20 }, { patchSize: 0 }, { nClasses: 0 }, { normEpsilon: NaN }]) {
      const call = MatMamba2Vision.create({ dModel: 32, nLayer: 1, patchSize: 8, imageSize: 16, ...one }, OPTIONS).then((model) =>
        model.dispose(),
      );
      await expect(call, JSON.stringify(one)).rejects.toMatchObject(code('CONFIG'));
    }
    await using fine = await MatMambaLMHeadModel.create({ ...CONFIG, ssmCfg: { dState: 8, dSsm: 128, headdim: 64 } }, OPTIONS);
    expect(fine.config.ssmCfg.headdim).toBe(64);
  });

  test('a model too large for the device is refused before anything is allocated, with dtypes that fit', async () => {
    const before = process.memoryUsage().rss;
    const large: Partial<MambaConfig> = { dModel: 2048, nLayer: 48, vocabSize: 50280 };
    const call = MatMambaLMHeadModel.create(large, OPTIONS);
    await expect(call).rejects.toMatchObject(code('MEMORY'));
    await expect(call).rejects.toThrow(/bf16.*int8/);
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * 2 ** 20);
    await expect(MatMambaLMHeadModel.create({ ...large, nLayer: 400 }, { ...OPTIONS, dtype: 'int8' })).rejects.toThrow(
      /no dtype/,
    );
  });
});

describe('abort', () => {
  test('before the call', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    for (const call of [
      lm.forward(ids, { signal }),
      block.forward(x, { signal }),
      vision.forward(images, { signal }),
      lm.loss(ids, ids, { signal }),
    ]) {
      const error: unknown = await call.then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      expect(error).toBeInstanceOf(MatMambaError);
      expect(error).toMatchObject({ code: 'ABORTED', cause: signal.reason });
    }
    await expect(MatMambaLMHeadModel.create(CONFIG, { ...OPTIONS, signal })).rejects.toMatchObject(code('ABORTED'));
  });

  test('in the middle of a long prefill frees the caller, and the model still works', async () => {
    const expected = await logits({ mrlLevel: 2 });
    const length = 60_000;
    const prompt = tensor(randomIds(length, 48, 6), [1, length]);
    const controller = new AbortController();
    const run = lm.forward(prompt, { signal: controller.signal, numLastTokens: 1 });
    const behind = logits({ mrlLevel: 2 });
    const waiting = lm.forward(ids, { signal: controller.signal });
    await new Promise((resolve) => setTimeout(resolve, 40));
    const start = performance.now();
    controller.abort();
    await expect(run).rejects.toMatchObject(code('ABORTED'));
    await expect(waiting).rejects.toMatchObject(code('ABORTED'));
    expect(performance.now() - start).toBeLessThan(500);
    expect(await behind).toEqual(expected);
    expect(await logits({ mrlLevel: 2 })).toEqual(expected);
  });

  test('creation, from a timer', async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 20);
    const start = performance.now();
    const call = MatMambaLMHeadModel.create(
      { dModel: 512, nLayer: 16, vocabSize: 20_000 },
      { ...OPTIONS, signal: controller.signal },
    );
    await expect(call).rejects.toMatchObject(code('ABORTED'));
    expect(performance.now() - start).toBeLessThan(3000);
  });

  test('generation', async () => {
    const controller = new AbortController();
    const pieces = lm.generate([1, 2, 3], { maxNewTokens: 1000, ignoreEnd: true, signal: controller.signal });
    await pieces.next();
    controller.abort();
    await expect(pieces.next()).rejects.toMatchObject(code('ABORTED'));
  });
});

describe('disposal', () => {
  test('calls after dispose are refused, disposing twice is fine', async () => {
    const model = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
    const state = model.createState();
    const weights = model.stateDict();
    await Promise.all([model.dispose(), model.dispose()]);
    await model.dispose();
    state.dispose();
    await expect(model.forward(ids)).rejects.toMatchObject(code('DISPOSED'));
    await expect(model.loss(ids, ids)).rejects.toMatchObject(code('DISPOSED'));
    await expect(model.generate([1]).next()).rejects.toMatchObject(code('DISPOSED'));
    await expect(model.loadStateDict(lm.stateDict())).rejects.toMatchObject(code('DISPOSED'));
    await expect(model.savePretrained('/nowhere')).rejects.toMatchObject(code('DISPOSED'));
    expect(() => model.stateDict()).toThrow(code('DISPOSED'));
    expect(() => model.createState()).toThrow(code('DISPOSED'));
    expect(() => weights['backbone.embedding.weight']!.array).toThrow(code('DISPOSED'));
    expect(await logits()).toHaveLength(2 * 12 * 48);
  });

  test('calls made before dispose still give their results', async () => {
    const model = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
    const expected = (await model.forward(ids, { mrlLevel: 2 })).logits.toFloat32();
    const calls = [{ mrlLevel: 2 }, { mrlLevel: 4 }, { mixnmatchDims: [3, 5] }].map((width) => model.forward(ids, width));
    await model.dispose();
    const results = await Promise.all(calls);
    expect(results[0]!.logits.toFloat32()).toEqual(expected);
    for (const { logits: one } of results) expect(one.toFloat32().every(Number.isFinite)).toBe(true);
  });

  test('generation whose consumer leaves gives its state back', async () => {
    await using model = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
    for (let i = 0; i < 50; i++) {
      for await (const piece of model.generate([1, 2], { maxNewTokens: 5, ignoreEnd: true })) {
        expect(piece.ids).toHaveLength(1);
        break;
      }
    }
    await using state = model.createState();
    expect(state.byteLength).toBeGreaterThan(0);
  });
});

describe('the cache of programs', () => {
  test('more shapes than it holds, at once and again', async () => {
    await using model = await MatMambaLMHeadModel.create(
      { dModel: 32, nLayer: 6, vocabSize: 16, ssmCfg: { dState: 8 } },
      OPTIONS,
    );
    const call = async (i: number): Promise<Float32Array> => {
      const length = 1 + Math.floor(i / 32);
      const options = { mixnmatchDims: 1 + (i % 32), numLastTokens: 1 };
      return (await model.forward(tensor(randomIds(length, 16, 8), [1, length]), options)).logits.toFloat32();
    };
    const once = await Promise.all(Array.from({ length: 700 }, (_, i) => call(i)));
    expect(model.memory().workBytes).toBeLessThan(40 * 2 ** 20);
    for (const i of [0, 1, 349, 350, 699]) expect(await call(i)).toEqual(once[i]);
  });

  test('profiles name the ops of the model', async () => {
    const seen: string[] = [];
    await lm.forward(ids, {
      onProfile: (ops) =>
        seen.push(...ops.map(({ op, scope, ms, flops, bytes }) => `${op} ${scope} ${ms >= 0 && flops >= 0 && bytes > 0}`)),
    });
    expect(seen).toContain('chunk_scan backbone.layers.1.mixer true');
    expect(seen.every((line) => line.endsWith('true'))).toBe(true);
  });
});
