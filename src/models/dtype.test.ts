/** Reduced weights against float32 at every level, and repetition across runs, threads and dirty memory. */

import { describe, expect, test } from 'vitest';
import { perturbed, randomFloats, randomIds, referenceBlock } from '../../test/support/reference-model.ts';
import { relativeError } from '../../test/support/run-case.ts';
import type { CpuBackend } from '../backends/cpu/cpu-backend.ts';
import { MatMamba2, MatMamba2Vision, MatMambaLMHeadModel, type Tensor, tensor } from '../index.ts';
import { SSM_DEFAULTS } from './config.ts';

const LEVELS = [1, 2, 4, 8];
/** Relative error of outputs; int8 is promised by its loss, and is this close on a model of random weights. */
const TOLERANCES = { bf16: 2e-2, f16: 2e-3, int8: 3e-2 } as const;
const LM = { dModel: 96, nLayer: 2, vocabSize: 200, ssmCfg: { dState: 24 } };
const VISION = { dModel: 64, nLayer: 2, nClasses: 10, patchSize: 8, imageSize: 32, dIntermediate: 128, ssmCfg: { dState: 16 } };
const ids = tensor(randomIds(2 * 50, 200, 1), [2, 50]);
const targets = tensor(randomIds(2 * 50, 200, 2), [2, 50]);
const images = tensor(randomFloats(2 * 3 * 32 * 32, 3), [2, 3, 32, 32]);

const mean = (values: Float32Array): number => values.reduce((a, b) => a + b, 0) / values.length;

describe('reduced weights', () => {
  for (const [dtype, tolerance] of Object.entries(TOLERANCES) as [keyof typeof TOLERANCES, number][]) {
    test(`language model, ${dtype}`, async () => {
      await using full = await MatMambaLMHeadModel.create(LM, { threads: 1 });
      await using reduced = await MatMambaLMHeadModel.create(LM, { threads: 1, dtype });
      const weights = perturbed(full.stateDict(), 4, 0.03);
      await full.loadStateDict(weights);
      await reduced.loadStateDict(weights);
      expect(reduced.memory().weightBytes).toBeLessThan(0.65 * full.memory().weightBytes);
      for (const mrlLevel of LEVELS) {
        const expected = (await full.forward(ids, { mrlLevel })).logits.toFloat32();
        expect(
          relativeError((await reduced.forward(ids, { mrlLevel })).logits.toFloat32(), expected),
          `level ${mrlLevel}`,
        ).toBeLessThan(tolerance);
        const [a, b] = [await full.loss(ids, targets, { mrlLevel }), await reduced.loss(ids, targets, { mrlLevel })];
        expect(Math.abs(mean(a.toFloat32()) - mean(b.toFloat32())), `loss at level ${mrlLevel}`).toBeLessThan(2e-2);
        await using state = reduced.createState({ batch: 2 });
        let stepped: Float32Array = new Float32Array();
        for (let t = 0; t < 50; t++) {
          const one = tensor(Int32Array.of(ids.array[t] as number, ids.array[50 + t] as number), [2, 1]);
          stepped = (await reduced.forward(one, { state, mrlLevel })).logits.toFloat32();
        }
        const last = (await reduced.forward(ids, { mrlLevel, numLastTokens: 1 })).logits.toFloat32();
        // One row and many may be multiplied by different kernels: int8 also quantises what it multiplies.
        expect(relativeError(stepped, last), `steps at level ${mrlLevel}`).toBeLessThan(dtype === 'int8' ? 2e-2 : 1e-5);
      }
    });

    test(`block and vision model, ${dtype}`, async () => {
      await using vision = await MatMamba2Vision.create(VISION, { threads: 1, seed: 1 });
      await using small = await MatMamba2Vision.create(VISION, { threads: 1, seed: 1, dtype });
      await using block = await MatMamba2.create({ dModel: 96, dState: 16 }, { threads: 1, seed: 1 });
      await using smallBlock = await MatMamba2.create({ dModel: 96, dState: 16 }, { threads: 1, seed: 1, dtype });
      const x = tensor(randomFloats(40 * 96, 5), [1, 40, 96]);
      for (const mrlLevel of LEVELS) {
        const [a, b] = [await vision.forward(images, { mrlLevel }), await small.forward(images, { mrlLevel })];
        expect(relativeError(b.toFloat32(), a.toFloat32()), `vision, level ${mrlLevel}`).toBeLessThan(tolerance);
        const [c, d] = [await block.forward(x, { mrlLevel }), await smallBlock.forward(x, { mrlLevel })];
        expect(relativeError(d.toFloat32(), c.toFloat32()), `block, level ${mrlLevel}`).toBeLessThan(tolerance);
      }
    });
  }

  test('a d_state that is no multiple of 8, in every dtype', async () => {
    for (const dtype of ['f32', 'bf16', 'f16', 'int8'] as const) {
      await using block = await MatMamba2.create({ dModel: 64, dState: 5 }, { threads: 1, dtype });
      const weights = block.stateDict();
      const x = tensor(randomFloats(20 * 64, 5), [1, 20, 64]);
      const expected = referenceBlock(weights, { dModel: 64, ...SSM_DEFAULTS, dState: 5 }, x, 24);
      const y = await block.forward(x, { mixnmatchDims: 24 });
      expect(relativeError(y.toFloat32(), expected), dtype).toBeLessThan(dtype === 'int8' ? 2e-2 : 2e-5);
    }
  });
});

describe('repetition', () => {
  async function outputs(threads: number): Promise<Float32Array[]> {
    await using lm = await MatMambaLMHeadModel.create(LM, { threads, blas: 'off', seed: 9 });
    await using vision = await MatMamba2Vision.create(VISION, { threads, blas: 'off', seed: 9 });
    const results = [];
    for (const mrlLevel of LEVELS) {
      results.push(
        (await lm.forward(ids, { mrlLevel })).logits.toFloat32(),
        (await vision.forward(images, { mrlLevel })).toFloat32(),
      );
      results.push((await lm.loss(ids, targets, { mrlLevel })).toFloat32());
      await using state = lm.createState({ batch: 2 });
      for (const id of [3, 4])
        results.push((await lm.forward(tensor(Int32Array.of(id, id), [2, 1]), { state, mrlLevel })).logits.toFloat32());
    }
    return results;
  }

  test('the same seed and input give the same bits; 1, 2 and 3 threads agree', async () => {
    const one = await outputs(1);
    expect(await outputs(1)).toEqual(one);
    for (const threads of [2, 3]) {
      const many = await outputs(threads);
      expect(await outputs(threads)).toEqual(many);
      for (const [i, values] of many.entries())
        expect(relativeError(values, one[i]!), `threads ${threads}, output ${i}`).toBeLessThan(1e-5);
    }
  });

  test('generation repeats under its seed', async () => {
    await using lm = await MatMambaLMHeadModel.create(LM, { threads: 2, seed: 9 });
    const generated = async (seed: number): Promise<number[]> => {
      const all = [];
      for await (const { ids: some } of lm.generate([1, 2, 3], { maxNewTokens: 20, ignoreEnd: true, seed, mrlLevel: 2 }))
        all.push(...some);
      return all;
    };
    const [a, b, c] = [await generated(1), await generated(1), await generated(2)];
    expect(a).toHaveLength(20);
    expect(b).toEqual(a);
    expect(c).not.toEqual(a);
  });

  /** Memory that later blocks, arenas and states will be taken from, full of NaN. */
  function soil(model: { readonly capabilities: unknown }): void {
    const { heap } = (model as unknown as { runtime: { backend: CpuBackend } }).runtime.backend;
    const blocks = [2 ** 26, 2 ** 20, 2 ** 16, 2 ** 12].map((bytes) => {
      const pointer = heap.allocate(bytes, 'dirt');
      heap.floats(pointer, bytes / 4).fill(NaN);
      return pointer;
    });
    for (const pointer of blocks) heap.free(pointer);
  }

  test('what lay in memory before does not show, at odd widths in every dtype', async () => {
    await using keeper = await MatMamba2.create({ dModel: 32, dState: 8 }, { threads: 2 });
    for (const dtype of ['f32', 'bf16', 'f16', 'int8'] as const) {
      const run = async (dirty: boolean): Promise<Float32Array[]> => {
        if (dirty) soil(keeper);
        await using lm = await MatMambaLMHeadModel.create(
          { ...LM, vocabSize: 39, dIntermediate: 50, ssmCfg: { dState: 8, DHasHdim: true, bias: true } },
          { threads: 2, dtype },
        );
        await using vision = await MatMamba2Vision.create(
          { ...VISION, dModel: 96, nClasses: 3, patchSize: 5, imageSize: 15, pool: 'avg' },
          { threads: 2, dtype },
        );
        const results: Float32Array[] = [];
        const prompt = (T: number): Tensor => tensor(randomIds(3 * T, 39, T), [3, T]);
        await using state = lm.createState({ batch: 3 });
        for (const mixnmatchDims of [3, 9, 51, 96]) {
          for (const T of [1, 2, 7, 35]) {
            if (dirty) soil(keeper);
            results.push((await lm.forward(prompt(T), { mixnmatchDims })).logits.toFloat32());
            results.push((await lm.forward(prompt(T), { mixnmatchDims, state, numLastTokens: 1 })).logits.toFloat32());
            results.push((await lm.loss(prompt(T), prompt(T), { mixnmatchDims })).toFloat32());
          }
          results.push((await vision.forward(tensor(randomFloats(3 * 225, 1), [1, 3, 15, 15]), { mixnmatchDims })).toFloat32());
        }
        return results;
      };
      const clean = await run(false);
      const dirty = await run(true);
      for (const [i, values] of clean.entries()) {
        expect(values.every(Number.isFinite), `${dtype}, output ${i}`).toBe(true);
        expect(dirty[i], `${dtype}, output ${i}`).toEqual(values);
      }
    }
  });
});
