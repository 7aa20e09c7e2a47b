/** Carried state: chunked prefill, decoding, changing widths, ragged batches, snapshots. */

import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type ReferenceState,
  emptyState,
  perturbed,
  randomFloats,
  randomIds,
  referenceBlock,
  referenceLogits,
} from '../../test/support/reference-model.ts';
import { relativeError } from '../../test/support/run-case.ts';
import { MatMamba2, MatMambaLMHeadModel, type ModelState, type Tensor, tensor } from '../index.ts';
import { SSM_DEFAULTS } from './config.ts';

const TOLERANCE = 1e-5;
const V = 40;
const OPTIONS = { threads: 1 } as const;

/** P = 1, 3, 4, 12. */
const MODEL_WIDTHS = [32, 96, 128, 384];
const models = new Map<number, MatMambaLMHeadModel>();

beforeAll(async () => {
  for (const dModel of MODEL_WIDTHS) {
    const lm = await MatMambaLMHeadModel.create({ dModel, nLayer: 2, vocabSize: V, ssmCfg: { dState: 16 } }, OPTIONS);
    await lm.loadStateDict(perturbed(lm.stateDict(), 1, 0.05));
    models.set(dModel, lm);
  }
});
afterAll(async () => {
  for (const lm of models.values()) await lm.dispose();
});

function columns(ids: Int32Array, batch: number, from: number, to: number): Tensor {
  const length = ids.length / batch;
  const part = Array.from({ length: batch }, (_, b) => [...ids.subarray(b * length + from, b * length + to)]).flat();
  return tensor(Int32Array.from(part), [batch, to - from]);
}

/** Feeds pieces one after the other and puts the logits together. */
async function inPieces(
  lm: MatMambaLMHeadModel,
  ids: Int32Array,
  batch: number,
  cuts: readonly number[],
  width: object,
): Promise<Float32Array> {
  await using state = lm.createState({ batch });
  const length = ids.length / batch;
  const all = new Float32Array(ids.length * V);
  let from = 0;
  for (const to of [...cuts, length]) {
    const { logits } = await lm.forward(columns(ids, batch, from, to), { ...width, state });
    const values = logits.toFloat32();
    const size = (to - from) * V;
    for (let b = 0; b < batch; b++) all.set(values.subarray(b * size, (b + 1) * size), (b * length + from) * V);
    from = to;
  }
  return all;
}

describe('prefill', () => {
  const widths = fc.oneof(
    fc.constantFrom(1, 2, 4, 8).map((mrlLevel) => () => ({ mrlLevel })),
    fc
      .array(fc.integer({ min: 1, max: 32 }), { minLength: 2, maxLength: 2 })
      .map((heads) => (dModel: number) => ({ mixnmatchDims: heads.map((n) => (n * dModel) / 32) })),
  );
  test('in random pieces with carried state equals one shot', async () => {
    const property = fc.asyncProperty(
      fc.constantFrom(...MODEL_WIDTHS),
      widths,
      fc.integer({ min: 2, max: 90 }),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 4 }),
      async (dModel, widthOf, length, places) => {
        const lm = models.get(dModel)!;
        const width = widthOf(dModel);
        const cuts = [...new Set(places.map((place) => Math.round(place * length)))]
          .filter((cut) => cut > 0 && cut < length)
          .sort((a, b) => a - b);
        const ids = randomIds(2 * length, V, length);
        const { logits } = await lm.forward(tensor(ids, [2, length]), width);
        expect(relativeError(await inPieces(lm, ids, 2, cuts, width), logits.toFloat32())).toBeLessThan(TOLERANCE);
      },
    );
    await fc.assert(property, { numRuns: 40, seed: 1 });
  });

  test('token by token equals one shot at every level', async () => {
    for (const [dModel, lm] of models) {
      const ids = randomIds(2 * 21, V, dModel);
      const every = Array.from({ length: 20 }, (_, i) => i + 1);
      for (const width of [
        {},
        { mrlLevel: 2 },
        { mrlLevel: 4 },
        { mrlLevel: 8 },
        { mixnmatchDims: [(3 * dModel) / 32, dModel / 32] },
      ]) {
        const { logits } = await lm.forward(tensor(ids, [2, 21]), width);
        expect(
          relativeError(await inPieces(lm, ids, 2, every, width), logits.toFloat32()),
          `D ${dModel} ${JSON.stringify(width)}`,
        ).toBeLessThan(TOLERANCE);
      }
    }
  });

  test('longer than one program: pieces inside, with and without lengths', async () => {
    const lm = models.get(32)!;
    const length = 2100;
    const ids = randomIds(2 * length, V, 9);
    const cuts = [500, 1000, 1500, 2000];
    const expected = await inPieces(lm, ids, 2, cuts, { mrlLevel: 2 });
    const { logits } = await lm.forward(tensor(ids, [2, length]), { mrlLevel: 2 });
    expect(relativeError(logits.toFloat32(), expected)).toBeLessThan(TOLERANCE);
    const count = 60;
    const last = await lm.forward(tensor(ids, [2, length]), { mrlLevel: 2, numLastTokens: count });
    const ends = [length, 2070];
    const ragged = await lm.forward(tensor(ids, [2, length]), { mrlLevel: 2, numLastTokens: count, lengths: ends });
    const inPlace = await lm.forward(tensor(ids, [2, length]), { mrlLevel: 2, lengths: ends });
    for (const b of [0, 1]) {
      const rows = (end: number, n: number): Float32Array =>
        expected.subarray((b * length + end - n) * V, (b * length + end) * V);
      const part = (got: Tensor, n: number, of: number): Float32Array => got.toFloat32().subarray(b * of * V, (b * of + n) * V);
      expect(relativeError(part(last.logits, count, count), rows(length, count))).toBeLessThan(TOLERANCE);
      expect(relativeError(part(ragged.logits, count, count), rows(ends[b]!, count))).toBeLessThan(TOLERANCE);
      expect(relativeError(part(inPlace.logits, ends[b]!, length), rows(ends[b]!, ends[b]!))).toBeLessThan(TOLERANCE);
    }
  });
});

describe('changing the width in the middle of a text', () => {
  test('language model: unused heads stand still', async () => {
    const lm = models.get(96)!;
    const weights = lm.stateDict();
    const ssm = { ...SSM_DEFAULTS, dState: 16 };
    const ids = randomIds(30, V, 3);
    await using state = lm.createState();
    const states: ReferenceState[][] = [[emptyState(96, ssm), emptyState(96, ssm)]];
    let from = 0;
    for (const [to, dims] of [
      [7, [96, 96]],
      [8, [12, 12]],
      [19, [48, 3]],
      [20, [96, 6]],
      [30, [96, 96]],
    ] as const) {
      const piece = columns(ids, 1, from, to);
      const { logits } = await lm.forward(piece, { state, mixnmatchDims: dims });
      expect(
        relativeError(logits.toFloat32(), referenceLogits(weights, lm.config, ssm, piece, dims, states)),
        `${from} to ${to}`,
      ).toBeLessThan(2e-5);
      from = to;
    }
  });

  test('block', async () => {
    const config = { dModel: 64, ...SSM_DEFAULTS, dState: 8, dConv: 3 };
    await using block = await MatMamba2.create(config, OPTIONS);
    const weights = perturbed(block.stateDict(), 2);
    await block.loadStateDict(weights);
    await using state = block.createState({ batch: 2 });
    const states = [emptyState(64, config), emptyState(64, config)];
    for (const [length, dims] of [
      [5, 64],
      [1, 4],
      [2, 33],
      [40, 17],
      [1, 64],
    ] as const) {
      const x = tensor(randomFloats(2 * length * 64, length), [2, length, 64]);
      const y = await block.forward(x, { state, mixnmatchDims: dims });
      expect(relativeError(y.toFloat32(), referenceBlock(weights, config, x, dims, states)), `dims ${dims}`).toBeLessThan(2e-5);
    }
  });
});

describe('ragged batches', () => {
  /** Logits of the last tokens of each prompt alone. */
  async function alone(
    lm: MatMambaLMHeadModel,
    prompts: readonly Int32Array[],
    count: number,
    width: object,
  ): Promise<Float32Array[]> {
    const results = [];
    for (const prompt of prompts) {
      const { logits } = await lm.forward(tensor(prompt, [1, prompt.length]), { ...width, numLastTokens: count });
      results.push(logits.toFloat32());
    }
    return results;
  }
  function padded(prompts: readonly Int32Array[], length: number): Tensor {
    const ids = new Int32Array(prompts.length * length).fill(V - 1);
    for (const [b, prompt] of prompts.entries()) ids.set(prompt, b * length);
    return tensor(ids, [prompts.length, length]);
  }

  test('each prompt gives what it gives alone, with and without a state', async () => {
    for (const [dModel, lm] of models) {
      const prompts = [5, 9, 33, 40, 16].map((n, i) => randomIds(n, V, 100 * dModel + i));
      const lengths = prompts.map((prompt) => prompt.length);
      for (const width of [{}, { mrlLevel: 4 }]) {
        for (const count of [1, 3]) {
          const expected = await alone(lm, prompts, count, width);
          await using state = lm.createState({ batch: prompts.length });
          for (const carried of [{}, { state }]) {
            const { logits } = await lm.forward(padded(prompts, 40), { ...width, ...carried, lengths, numLastTokens: count });
            for (const [b, one] of expected.entries()) {
              const mine = logits.toFloat32().subarray(b * count * V, (b + 1) * count * V);
              // Few rows and many take different kernels, so sums are rounded in another order.
              expect(relativeError(mine, one), `D ${dModel}, prompt ${b}`).toBeLessThan(3e-6);
            }
          }
        }
      }
    }
  });

  test('steps of mixed lengths, 0 among them, leave every sequence where it would be alone', async () => {
    const lm = models.get(96)!;
    const prompts = [17, 30, 6].map((n, i) => randomIds(n, V, 7 + i));
    await using state = lm.createState({ batch: 3 });
    const fed = [0, 0, 0];
    for (const step of [
      [3, 0, 6],
      [0, 20, 0],
      [13, 9, 0],
      [1, 1, 0],
    ]) {
      const pieces = step.map((n, b) => prompts[b]!.subarray(fed[b], fed[b]! + n));
      const length = Math.max(...step);
      const { logits } = await lm.forward(padded(pieces, length), { state, lengths: step, numLastTokens: 1 });
      for (const [b, n] of step.entries()) {
        fed[b]! += n;
        if (n === 0) continue;
        const so = prompts[b]!.subarray(0, fed[b]);
        const { logits: expected } = await lm.forward(tensor(so.slice(), [1, so.length]), { numLastTokens: 1 });
        expect(
          relativeError(logits.toFloat32().subarray(b * V, (b + 1) * V), expected.toFloat32()),
          `sequence ${b}`,
        ).toBeLessThan(TOLERANCE);
      }
    }
    expect(fed).toEqual([17, 30, 6]);
  });

  test('without numLastTokens every row stands in its own place', async () => {
    const lm = models.get(32)!;
    const prompts = [3, 8].map((n, i) => randomIds(n, V, 20 + i));
    const { logits } = await lm.forward(padded(prompts, 8), { lengths: [3, 8] });
    expect(logits.shape).toEqual([2, 8, V]);
    for (const [b, prompt] of prompts.entries()) {
      const { logits: expected } = await lm.forward(tensor(prompt, [1, prompt.length]));
      const mine = logits.toFloat32().subarray(b * 8 * V, (b * 8 + prompt.length) * V);
      expect(relativeError(mine, expected.toFloat32()), `prompt ${b}`).toBeLessThan(1e-6);
    }
  });

  test('lengths that do not fit are refused', async () => {
    const lm = models.get(32)!;
    const ids = padded([randomIds(4, V, 1), randomIds(4, V, 2)], 4);
    await using state = lm.createState({ batch: 2 });
    for (const lengths of [[4], [4, 5], [4, -1], [4, 1.5], [4, NaN]]) {
      await expect(lm.forward(ids, { lengths, state })).rejects.toMatchObject({ code: expect.stringMatching(/SHAPE|OPTION/) });
    }
    await expect(lm.forward(ids, { lengths: [4, 0] })).rejects.toMatchObject({ code: 'OPTION' });
    await expect(lm.forward(ids, { lengths: [4, 1], numLastTokens: 2 })).rejects.toMatchObject({ code: 'OPTION' });
    for (const numLastTokens of [0, 5, 1.5, NaN])
      await expect(lm.forward(ids, { numLastTokens })).rejects.toMatchObject({ code: 'OPTION' });
  });
});

describe('snapshots', () => {
  const next = async (lm: MatMambaLMHeadModel, state: ModelState, id: number): Promise<Float32Array> =>
    (await lm.forward(tensor(new Int32Array(state.batch).fill(id), [state.batch, 1]), { state })).logits.toFloat32();

  test('restore, reset, and restore into another state', async () => {
    const lm = models.get(128)!;
    await using state = lm.createState({ batch: 2 });
    await using other = lm.createState({ batch: 2 });
    const fresh = await next(lm, state, 1);
    const snapshot = await state.snapshot();
    const second = await next(lm, state, 2);
    expect(relativeError(await next(lm, state, 2), second)).toBeGreaterThan(1e-4);
    await state.restore(snapshot);
    expect(await next(lm, state, 2)).toEqual(second);
    await other.restore(snapshot);
    expect(await next(lm, other, 2)).toEqual(second);
    await state.reset();
    expect(await next(lm, state, 1)).toEqual(fresh);
    expect(state.byteLength).toBe(2 * state.slotBytes);
  });

  test('take their place in the order of calls, awaited or not', async () => {
    const lm = models.get(128)!;
    const ids = randomIds(200, V, 4);
    await using state = lm.createState();
    await using other = lm.createState();
    await lm.forward(tensor(ids, [1, 200]), { state });
    const expected = await state.snapshot();
    // A program that has to be traced first, then its snapshot, then another run.
    const run = lm.forward(tensor(ids, [1, 200]), { state: other, numLastTokens: 7 });
    const snapshot = other.snapshot();
    const later = lm.forward(tensor(ids, [1, 200]), { state: other });
    expect((await snapshot).slots).toEqual(expected.slots);
    await Promise.all([run, later]);
  });

  test('a state disposed behind a run that waits lives until that run is done', async () => {
    const lm = models.get(128)!;
    const ids = tensor(randomIds(64, V, 5), [1, 64]);
    await using expected = lm.createState();
    const { logits } = await lm.forward(ids, { state: expected });
    const state = lm.createState();
    const run = lm.forward(ids, { state });
    state.dispose();
    const others = Array.from({ length: 4 }, () => lm.createState());
    expect((await run).logits.toFloat32()).toEqual(logits.toFloat32());
    const blank = new Uint8Array(state.slotBytes);
    for (const other of others) {
      expect((await other.snapshot()).slots).toEqual([blank]);
      other.dispose();
    }
  });

  test('what does not belong together is refused', async () => {
    const [lm, small] = [models.get(96)!, models.get(32)!];
    await using state = lm.createState({ batch: 2 });
    const one = tensor(Int32Array.of(1), [1, 1]);
    await expect(lm.forward(one, { state })).rejects.toMatchObject({ code: 'SHAPE' });
    await using foreign = small.createState();
    await expect(lm.forward(one, { state: foreign })).rejects.toMatchObject({ code: 'OPTION' });
    await expect(state.restore(await foreign.snapshot())).rejects.toMatchObject({ code: 'SHAPE' });
    const gone = lm.createState();
    gone.dispose();
    gone.dispose();
    await expect(lm.forward(one, { state: gone })).rejects.toMatchObject({ code: 'DISPOSED' });
    await expect(gone.snapshot()).rejects.toMatchObject({ code: 'DISPOSED' });
    await expect(gone.reset()).rejects.toMatchObject({ code: 'DISPOSED' });
    for (const batch of [0, -1, 1.5, NaN])
      expect(() => lm.createState({ batch })).toThrow(expect.objectContaining({ code: 'OPTION' }));
    expect(() => lm.createState({ bach: 2 } as object)).toThrow(/did you mean 'batch'/);
  });

  test('threads that work side by side on one sequence leave the same state every time', async () => {
    await using block = await MatMamba2.create({ dModel: 96, dState: 16 }, { threads: 2 });
    const x = tensor(randomFloats(512 * 96, 1), [1, 512, 96]);
    await using state = block.createState();
    const left = async (): Promise<readonly Uint8Array[]> => {
      await state.reset();
      await block.forward(x, { state, mixnmatchDims: 3 });
      return (await state.snapshot()).slots;
    };
    const expected = await left();
    for (let run = 0; run < 300; run++) {
      const slots = await left();
      if (Buffer.compare(slots[0]!, expected[0]!) !== 0) throw new Error(`run ${run} left another state`);
    }
  });

  test('a thousand states come and go in the same memory', async () => {
    const lm = models.get(384)!;
    const one = tensor(Int32Array.of(1, 2), [2, 1]);
    let after100 = 0;
    for (let i = 0; i < 1000; i++) {
      const state = lm.createState({ batch: 2 });
      if (i % 100 === 0) await lm.forward(one, { state });
      else await Promise.resolve();
      state.dispose();
      if (i === 100) after100 = process.memoryUsage().rss;
    }
    expect(process.memoryUsage().rss - after100).toBeLessThan(64 * 2 ** 20);
  });

  test('more states than fit are refused, and those that fit still work', async () => {
    const lm = models.get(32)!;
    expect(() => lm.createState({ batch: 20_000 })).toThrow(expect.objectContaining({ code: 'MEMORY' }));
    await lm.forward(tensor(Int32Array.of(1), [1, 1]));
    await using state = lm.createState();
    expect(await next(lm, state, 1)).toHaveLength(V);
  });
});
