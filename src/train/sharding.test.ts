/** AdamW's moments on their owners only: the same bits as without, files that any number of ranks goes on from. */

import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TrainingEngine } from './engine.ts';
import { type LanguageRunOptions, trainLanguageModel } from './language-run.ts';
import { ownersOf } from './owners.ts';
import { ranksInProcess, tinyModel } from './testing.ts';

describe('owners', () => {
  test('are balanced: no rank has more than another by more than a parameter', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 8, maxLength: 40 }),
        fc.integer({ min: 1, max: 8 }),
        (sizes, size) => {
          const owners = ownersOf(
            sizes.map((n) => ({ shape: [n] })),
            size,
          );
          const loads = Array.from({ length: size }, (_, rank) =>
            sizes.reduce((sum, n, i) => sum + (owners[i] === rank ? n : 0), 0),
          );
          expect(loads.reduce((a, b) => a + b)).toBe(sizes.reduce((a, b) => a + b));
          expect(Math.min(...loads)).toBeGreaterThan(0);
          expect(Math.max(...loads) - Math.min(...loads)).toBeLessThanOrEqual(Math.max(...sizes));
        },
      ),
    );
  });

  test('need a parameter each', () => {
    expect(() => ownersOf([{ shape: [3] }], 2)).toThrow(/1 parameters cannot be shared by 2 processes/);
  });
});

test('moments lie on one rank each, gradients on all', async () => {
  const ranks = ranksInProcess(3);
  const held: string[][] = [];
  for (const communicator of ranks) {
    await using model = await tinyModel();
    const engine = await TrainingEngine.attach(model, {}, { communicator, shard: true });
    held.push([...model.parameters.declared.keys()].filter((name) => engine.owns(name)));
    for (const name of model.parameters.declared.keys()) expect(engine.moment(name, 'm') !== undefined).toBe(engine.owns(name));
    expect(engine.gradients().every(Boolean)).toBe(true);
    if (communicator.rank === 0) expect(held[0]).not.toHaveLength(0);
    engine.dispose();
  }
  await using model = await tinyModel();
  expect(held.flat().sort()).toEqual([...model.parameters.declared.keys()].sort());
});

describe('a sharded run', () => {
  let folder = '';
  let tokens = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'matmamba-sharding-'));
    tokens = join(folder, 'tokens.bin');
    const head = new Int32Array(256);
    head.set([20240520, 1, 3000]);
    const ids = Uint16Array.from({ length: 3000 }, (_, i) => (i * i + (i >> 3)) % 37);
    writeFileSync(tokens, Buffer.concat([Buffer.from(head.buffer), Buffer.from(ids.buffer)]));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const STEPS = 6;

  const optionsOf = (out: string, change: Partial<LanguageRunOptions>): LanguageRunOptions => ({
    out: join(folder, out),
    recipe: {
      strategy: { strategy: 'joint', levels: [1, 4] },
      batch: 12,
      microBatch: 2,
      schedule: { peak: 5e-3, warmupSteps: 2, totalSteps: STEPS },
      adamw: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 0.5 },
      projDropRate: 0.1,
      dropPathRate: 0.1,
      distillation: 0,
      seed: 4,
    },
    data: [tokens],
    sampling: 'permuted',
    length: 16,
    config: { dModel: 32, nLayer: 2, vocabSize: 40, ssmCfg: { dState: 8 } },
    validationWindows: 2,
    recompute: false,
    validateEvery: 100,
    saveEvery: 3,
    communicator: ranksInProcess(1)[0]!,
    device: { threads: 1, blas: 'off' },
    ...change,
  });

  const inRanks = (size: number, out: string, change: Partial<LanguageRunOptions>): Promise<unknown> =>
    Promise.all(ranksInProcess(size).map((communicator) => trainLanguageModel(optionsOf(out, { ...change, communicator }))));

  /** Weights, moments and the log of a run. */
  function filesOf(out: string, step = STEPS): { model: Buffer; moments: Buffer; log: unknown[] } {
    const checkpoint = join(folder, out, 'checkpoints', `step-${String(step).padStart(8, '0')}`);
    const log = readFileSync(join(folder, out, 'log.jsonl'), 'utf8')
      .trim()
      .split('\n');
    return {
      model: readFileSync(join(checkpoint, 'model.safetensors')),
      moments: readFileSync(join(checkpoint, 'optimizer/model.safetensors')),
      log: log.map((line) => ({ ...(JSON.parse(line) as object), seconds: 0 })),
    };
  }

  function expectSame(out: string, expected: string): void {
    const [got, wanted] = [filesOf(out), filesOf(expected)];
    expect(got.log).toEqual(wanted.log);
    expect(got.model.equals(wanted.model)).toBe(true);
    expect(got.moments.equals(wanted.moments)).toBe(true);
  }

  test.each([2, 3])('of %i ranks is the unsharded one, bit for bit', async (size) => {
    await inRanks(size, `plain ${size}`, {});
    await inRanks(size, `sharded ${size}`, { shardOptimizer: true });
    expectSame(`sharded ${size}`, `plain ${size}`);
  });

  test('of one rank is the unsharded one', async () => {
    await inRanks(1, 'plain 1', {});
    await inRanks(1, 'sharded 1', { shardOptimizer: true });
    expectSame('sharded 1', 'plain 1');
  });

  /** Stops after step 4 and throws away what was saved then: the checkpoint of step 3 is left, as after a kill. */
  async function killed(size: number, out: string, change: Partial<LanguageRunOptions>): Promise<void> {
    const controller = new AbortController();
    const onStep: LanguageRunOptions['onStep'] = ({ step }) => void (step === 4 && controller.abort());
    await expect(inRanks(size, out, { ...change, onStep, signal: controller.signal })).rejects.toMatchObject({ code: 'ABORTED' });
    rmSync(join(folder, out, 'checkpoints/step-00000004'), { recursive: true });
    expect(readdirSync(join(folder, out, 'checkpoints'))).toEqual(['step-00000003']);
  }

  test.each([
    ['sharded goes on sharded', true, true],
    ['sharded goes on whole', true, false],
    ['whole goes on sharded', false, true],
  ])('that was killed repeats the unbroken one: %s', async (name, before, after) => {
    await killed(2, name, { shardOptimizer: before });
    await inRanks(2, name, { shardOptimizer: after });
    await inRanks(2, `${name}, unbroken`, {});
    expectSame(name, `${name}, unbroken`);
  });

  test('goes on with another number of ranks', async () => {
    await killed(2, 'two', { shardOptimizer: true });
    await inRanks(3, 'two', { shardOptimizer: true });
    await inRanks(2, 'two, unbroken', {});
    const [got, expected] = [filesOf('two'), filesOf('two, unbroken')];
    for (const [i, entry] of (expected.log as { losses?: Record<string, number> }[]).entries()) {
      const { losses } = got.log[i] as { losses?: Record<string, number> };
      for (const [label, loss] of Object.entries(entry.losses ?? {})) expect(Math.abs(losses![label]! - loss)).toBeLessThan(1e-4);
    }
  });
});
