/** Whole runs in folders: what a resume repeats, what it may change, and what it refuses. */

import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ranksInProcess } from './testing.ts';
import { type LanguageRunOptions, trainLanguageModel } from './language-run.ts';
import type { RecipeOptions } from './run.ts';

let folder = '';
let tokens = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'matmamba-run-'));
  tokens = join(folder, 'tokens.bin');
  const head = new Int32Array(256);
  head.set([20240520, 1, 3000]);
  const ids = Uint16Array.from({ length: 3000 }, (_, i) => (i * i + (i >> 3)) % 37);
  writeFileSync(tokens, Buffer.concat([Buffer.from(head.buffer), Buffer.from(ids.buffer)]));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const STEPS = 8;

const recipe = (change: Partial<RecipeOptions> = {}): RecipeOptions => ({
  strategy: { strategy: 'joint', levels: [1, 4] },
  batch: 4,
  microBatch: 2,
  schedule: { peak: 5e-3, warmupSteps: 2, totalSteps: STEPS },
  adamw: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 },
  projDropRate: 0.1,
  dropPathRate: 0.1,
  distillation: 0,
  seed: 4,
  ...change,
});

const optionsOf = (out: string, change: Partial<LanguageRunOptions> = {}): LanguageRunOptions => ({
  out: join(folder, out),
  recipe: recipe(),
  data: [tokens],
  validationData: tokens,
  sampling: 'permuted',
  length: 16,
  config: { dModel: 32, nLayer: 2, vocabSize: 40, ssmCfg: { dState: 8 } },
  validationWindows: 2,
  recompute: false,
  validateEvery: 4,
  saveEvery: 3,
  communicator: ranksInProcess(1)[0]!,
  device: { threads: 1, blas: 'off' },
  ...change,
});

/** Runs until `step`, then stops it; the checkpoint of the abort is thrown away, as a kill would. */
async function killedAt(step: number, out: string, change: Partial<LanguageRunOptions> = {}): Promise<void> {
  const controller = new AbortController();
  const onStep: LanguageRunOptions['onStep'] = (record) => void (record.step === step && controller.abort());
  const options = optionsOf(out, { ...change, onStep, signal: controller.signal });
  await expect(trainLanguageModel(options)).rejects.toMatchObject({ code: 'ABORTED' });
  const made = join(folder, out, 'checkpoints', `step-${String(step).padStart(8, '0')}`);
  if (step % 3 !== 0) rmSync(made, { recursive: true });
}

function logOf(out: string): Record<string, unknown>[] {
  const lines = readFileSync(join(folder, out, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n');
  return lines.map((line) => {
    const { seconds: _, ...rest } = JSON.parse(line) as Record<string, unknown>;
    return rest;
  });
}

const weightsOf = (out: string): Buffer =>
  readFileSync(join(folder, out, 'checkpoints', `step-${String(STEPS).padStart(8, '0')}`, 'model.safetensors'));

describe('a resume repeats an unbroken run', () => {
  test.each([
    ['joint', {}],
    ['joint, recomputed, uniform windows', { recompute: true, sampling: 'uniform' }],
    [
      'sample in turn with mixes',
      { recipe: recipe({ strategy: { strategy: 'sample', levels: [1, 4], mixes: 1, mixFrom: 'any' } }) },
    ],
    ['sample at random', { recipe: recipe({ strategy: { strategy: 'sample', levels: [1, 2, 4], order: 'random' } }) }],
    [
      'joint with mixes and distillation',
      { recipe: recipe({ strategy: { strategy: 'joint', levels: [1, 4], mixes: 1, distill: true }, distillation: 0.5 }) },
    ],
  ] satisfies [string, Partial<LanguageRunOptions>][])('%s', async (name, change) => {
    const [whole, broken] = [`${name} whole`, `${name} broken`];
    const summary = await trainLanguageModel(optionsOf(whole, change));
    expect(summary).toMatchObject({ firstStep: 0, steps: STEPS });
    for (const step of [2, 4, 7]) await killedAt(step, broken, change);
    expect(await trainLanguageModel(optionsOf(broken, change))).toMatchObject({ firstStep: 6, bestLoss: summary.bestLoss });
    expect(logOf(broken)).toEqual(logOf(whole));
    expect(weightsOf(broken).equals(weightsOf(whole))).toBe(true);
    expect(readdirSync(join(folder, broken, 'checkpoints')).sort()).toEqual(['step-00000006', 'step-00000008']);
  });

  test('a run that is complete does nothing more', async () => {
    await trainLanguageModel(optionsOf('twice'));
    const before = logOf('twice');
    expect(await trainLanguageModel(optionsOf('twice'))).toMatchObject({ firstStep: STEPS });
    expect(logOf('twice')).toEqual(before);
  });
});

describe('several ranks', () => {
  const inRanks = async (size: number, out: string, change: Partial<LanguageRunOptions>): Promise<void> => {
    await Promise.all(
      ranksInProcess(size).map((communicator) => trainLanguageModel(optionsOf(out, { ...change, communicator }))),
    );
  };

  test.each([
    ['joint', [recipe(), recipe(), recipe({ microBatch: 1 })]],
    ['sample', [2, 1, 1].map((microBatch) => recipe({ microBatch, strategy: { strategy: 'sample', levels: [1, 4] } }))],
  ])('%s: train as one does, dropout included', async (name, [one, two]) => {
    await trainLanguageModel(optionsOf(`${name} alone`, { recipe: one! }));
    await inRanks(2, `${name} together`, { recipe: two! });
    const [got, expected] = [logOf(`${name} together`), logOf(`${name} alone`)];
    expect(got).toHaveLength(expected.length);
    for (const [i, entry] of expected.entries()) {
      for (const kind of ['losses', 'validation'])
        for (const [label, loss] of Object.entries((entry[kind] ?? {}) as Record<string, number>))
          expect(
            Math.abs((got[i]![kind] as Record<string, number>)[label]! - loss),
            `${kind} ${label} of ${String(entry['step'])}`,
          ).toBeLessThan(1e-4);
    }
  });

  test('go on where one stopped', async () => {
    await trainLanguageModel(optionsOf('unbroken'));
    await killedAt(4, 'shared');
    await inRanks(2, 'shared', { recipe: recipe({ microBatch: 1 }) });
    const [got, expected] = [logOf('shared'), logOf('unbroken')];
    for (const [i, { losses }] of expected.entries())
      for (const [label, loss] of Object.entries((losses ?? {}) as Record<string, number>))
        expect(Math.abs((got[i]!['losses'] as Record<string, number>)[label]! - loss)).toBeLessThan(1e-4);
  });
});

describe('a resume', () => {
  beforeAll(async () => {
    await killedAt(4, 'begun');
  });

  const copy = (name: string): string => {
    cpSync(join(folder, 'begun'), join(folder, name), { recursive: true });
    return name;
  };

  test.each([
    ['the learning rate', { recipe: recipe({ schedule: { peak: 1e-3, warmupSteps: 2, totalSteps: STEPS } }) }, /peak/],
    ['the number of steps', { recipe: recipe({ schedule: { peak: 5e-3, warmupSteps: 2, totalSteps: 9 } }) }, /totalSteps.*8.*9/],
    ['the batch', { recipe: recipe({ batch: 8 }) }, /batch.*4.*8/],
    ['the levels', { recipe: recipe({ strategy: { strategy: 'joint', levels: [1, 8] } }) }, /4 became 8/],
    ['dropout', { recipe: recipe({ projDropRate: 0 }) }, /projDropRate/],
    ['the shape of the model', { config: { dModel: 64, nLayer: 2, vocabSize: 40, ssmCfg: { dState: 8 } } }, /dModel.*32.*64/],
    ['the windows', { sampling: 'uniform' }, /permuted.*uniform/],
    ['the length', { length: 8 }, /length.*16.*8/],
    ['where it started from', { initFrom: 'elsewhere' }, /initFrom/],
  ] satisfies [string, Partial<LanguageRunOptions>, RegExp][])('may not change %s', async (name, change, message) => {
    const out = copy(`changed ${name}`);
    const before = logOf(out);
    await expect(trainLanguageModel(optionsOf(out, change))).rejects.toMatchObject({ code: 'OPTION', message });
    expect(logOf(out)).toEqual(before);
  });

  test('may save, validate and cut its batches otherwise', async () => {
    const out = copy('otherwise');
    const change = { saveEvery: 2, validateEvery: 8, recompute: true, recipe: recipe({ microBatch: 4 }) };
    expect(await trainLanguageModel(optionsOf(out, change))).toMatchObject({ firstStep: 3 });
  });

  test('from a damaged checkpoint says which', async () => {
    const out = copy('damaged');
    writeFileSync(join(folder, out, 'checkpoints/step-00000003/progress.json'), '{');
    await expect(trainLanguageModel(optionsOf(out))).rejects.toMatchObject({
      code: 'FORMAT',
      message: /step-00000003.progress\.json/,
    });
    // Without it the run begins anew.
    rmSync(join(folder, out, 'checkpoints/step-00000003'), { recursive: true });
    expect(await trainLanguageModel(optionsOf(out))).toMatchObject({ firstStep: 0 });
  });
});

test.each([
  [{ recipe: recipe({ batch: 3 }) }, /batch of 3 rows does not divide into micro-batches of 2/],
  [{ recipe: recipe({ strategy: { strategy: 'joint', levels: [1, 3] } }) }, /3/],
  [{ recipe: recipe({ strategy: { strategy: 'joint', levels: [] } }) }, /level/],
] satisfies [Partial<LanguageRunOptions>, RegExp][])('a recipe that cannot be: %#', async (change, message) => {
  await expect(trainLanguageModel(optionsOf('impossible', change))).rejects.toMatchObject({ message });
});
