/** Moments on disk: the same bits back, and only those of this model. */

import { mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import { MOMENTS, TrainingEngine } from './engine.ts';
import { loadMoments, saveMoments } from './optimizer-file.ts';
import { CONFIG, LENGTH, batchOf, shapeOf, tinyModel } from './testing.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'matmamba-moments-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Saves the moments after a step and returns them by name. */
async function saved(): Promise<Map<string, Float32Array>> {
  await using model = await tinyModel();
  const engine = await TrainingEngine.attach(model);
  const scale = new Float32Array(2 * LENGTH).fill(1);
  await engine.accumulate(shapeOf(2), { ...batchOf(0, 0, 2), scale, seed: new Int32Array(3) });
  await engine.update(1, 1e-3);
  await saveMoments(folder, engine, model.parameters.declared.values());
  return await momentsOf(model, engine);
}

async function momentsOf(model: MatMambaLMHeadModel, engine: TrainingEngine): Promise<Map<string, Float32Array>> {
  const all = new Map<string, Float32Array>();
  for (const { name, shape } of model.parameters.declared.values())
    for (const moment of MOMENTS) all.set(`${name}#${moment}`, (await engine.moment(name, moment).read(0, shape[0]!)).slice());
  return all;
}

async function loaded(config: typeof CONFIG): Promise<Map<string, Float32Array>> {
  await using model = await MatMambaLMHeadModel.create(config, { threads: 1, blas: 'off' });
  const engine = await TrainingEngine.attach(model);
  await loadMoments(folder, engine, model.parameters.declared.values());
  return await momentsOf(model, engine);
}

test('come back bit for bit', async () => {
  const before = await saved();
  expect([...before.values()].some((values) => values.some((value) => value !== 0))).toBe(true);
  expect(await loaded(CONFIG)).toEqual(before);
});

test('of another model are refused', async () => {
  await saved();
  await expect(loaded({ ...CONFIG, nLayer: 4 })).rejects.toMatchObject({ code: 'WEIGHTS', message: /layers\.3\./ });
  await expect(loaded({ ...CONFIG, vocabSize: 80 })).rejects.toMatchObject({ code: 'SHAPE', message: /embedding.*80/ });
});

test('that are missing or damaged are an error', async () => {
  await expect(loaded(CONFIG)).rejects.toMatchObject({ code: 'FILE' });
  await saved();
  truncateSync(join(folder, 'optimizer/model.safetensors'), 5000);
  await expect(loaded(CONFIG)).rejects.toMatchObject({ code: 'FORMAT' });
});
