/** Fine-tuning on a text in memory: what is learned, what repeats, what is refused. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, describe, expect, test } from 'vitest';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import { tensor } from '../tensor/tensor.ts';
import { type FineTuneOptions, fineTune } from './fine-tune.ts';
import type { StepRecord } from './trainer.ts';

const CONFIG = { dModel: 64, nLayer: 2, vocabSize: 256, ssmCfg: { dState: 16 } };
const TEXT = [...new TextEncoder().encode('the sea was calm and the sky was clear. '.repeat(8))];
const OPTIONS = { steps: 12, batch: 2, length: 32, learningRate: 3e-3 } satisfies FineTuneOptions;

const opened: MatMambaLMHeadModel[] = [];
afterEach(async () => {
  for (const model of opened.splice(0)) await model.dispose();
});
async function create(dtype: 'f32' | 'int8' = 'f32'): Promise<MatMambaLMHeadModel> {
  const model = await MatMambaLMHeadModel.create(CONFIG, { threads: 1, blas: 'off', seed: 1, dtype });
  opened.push(model);
  return model;
}
async function lossOf(model: MatMambaLMHeadModel, mrlLevel: number): Promise<number> {
  const ids = (from: number): Int32Array => Int32Array.from(TEXT.slice(from, from + 64));
  const losses = await model.loss(tensor(ids(0), [1, 64]), tensor(ids(1), [1, 64]), { mrlLevel });
  return losses.toFloat32().reduce((a, b) => a + b, 0) / 64;
}
async function run(model: MatMambaLMHeadModel, options: Partial<FineTuneOptions> = {}): Promise<StepRecord[]> {
  const records: StepRecord[] = [];
  await fineTune(model, TEXT, { ...OPTIONS, onStep: (record) => void records.push(record), ...options });
  return records;
}

describe('fine-tuning', () => {
  test('every level learns the text, and the memory that it took is given back', async () => {
    const model = await create();
    const before = await Promise.all([1, 2, 4, 8].map((level) => lossOf(model, level)));
    const { weightBytes } = model.memory();
    const records = await run(model);
    expect(records.map(({ step }) => step)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
    expect(Object.keys(records[0]!.losses)).toEqual(['level 1', 'level 2', 'level 4', 'level 8']);
    expect(records[0]!.learningRate).toBeCloseTo(3e-3, 5);
    expect(records.at(-1)!.learningRate).toBeLessThan(3e-4);
    for (const [i, level] of [1, 2, 4, 8].entries()) expect(await lossOf(model, level)).toBeLessThan(before[i]! - 0.5);
    expect(model.memory().weightBytes).toBe(weightBytes);
  });

  test('repeats number by number, and draws other windows under another seed', async () => {
    const losses = async (options: Partial<FineTuneOptions>): Promise<unknown> => {
      const records = await run(await create(), { ...options, steps: 3 });
      return records.map((record) => record.losses);
    };
    const first = await losses({});
    expect(await losses({})).toEqual(first);
    expect(await losses({ seed: 1 })).not.toEqual(first);
  });

  test('a signal ends it after the step that runs; the model goes on with what it learned', async () => {
    const model = await create();
    const controller = new AbortController();
    const before = await lossOf(model, 1);
    const onStep = ({ step }: StepRecord): void => void (step === 4 && controller.abort());
    await expect(run(model, { onStep, signal: controller.signal })).rejects.toMatchObject({ code: 'ABORTED' });
    expect(await lossOf(model, 1)).toBeLessThan(before);
  });

  test('its files in memory are those of a folder', async () => {
    const model = await create();
    await run(model, { steps: 1 });
    const folder = mkdtempSync(`${tmpdir()}/matmamba-files-`);
    try {
      const files = await model.files();
      expect(Object.keys(files)).toEqual(['config.json', 'model.safetensors']);
      for (const [name, blob] of Object.entries(files))
        writeFileSync(`${folder}/${name}`, new Uint8Array(await blob.arrayBuffer()));
      for (const source of [folder, files]) {
        const again = await MatMambaLMHeadModel.fromPretrained(source, { threads: 1, blas: 'off' });
        opened.push(again);
        const weights = Object.entries(model.stateDict());
        for (const [name, tensor] of weights) expect(again.stateDict()[name]!.toFloat32(), name).toEqual(tensor.toFloat32());
      }
      await expect(MatMambaLMHeadModel.fromPretrained({ 'config.json': files['config.json']! })).rejects.toMatchObject({
        code: 'FILE',
        message: expect.stringContaining('the given files/ holds no weights'),
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('refuses what cannot be trained', async () => {
    const model = await create();
    await expect(fineTune(model, TEXT, { ...OPTIONS, steps: 0 })).rejects.toMatchObject({ code: 'OPTION' });
    await expect(fineTune(model, TEXT, { ...OPTIONS, stepz: 1 } as never)).rejects.toThrow(/did you mean 'steps'/);
    await expect(fineTune(model, TEXT.slice(0, 32), OPTIONS)).rejects.toMatchObject({ code: 'TOKEN' });
    await expect(fineTune(model, [...TEXT, 256], OPTIONS)).rejects.toThrow(/token 320 of the text is 256/);
    await expect(fineTune(model, 'text', OPTIONS)).rejects.toMatchObject({ code: 'TOKEN' });
    await expect(fineTune(model, TEXT, { ...OPTIONS, levels: [3] })).rejects.toMatchObject({ code: 'WIDTH' });
    await expect(fineTune(await create('int8'), TEXT, OPTIONS)).rejects.toMatchObject({ code: 'OPTION' });
  });
});
