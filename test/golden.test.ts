/** Block, language model and vision model against what the original implementation computed, at every width it printed. */

import { existsSync, readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { describe, expect, test } from 'vitest';
import { MatMamba2, MatMamba2Vision, MatMambaLMHeadModel, type Tensor, type WidthOptions, tensor } from '../src/index.ts';
import { GOLDEN_FOLDERS, readJson, readTensors } from './support/golden.ts';
import { relativeError } from './support/run-case.ts';

/** Section 5 of the design: float32 outputs. */
const TOLERANCE = 2e-5;

type Mix = Record<string, number[]>;

/** `level4` -> a level, `dims160` -> dims, `mixA` -> the listed widths. */
function widthOf(name: string, mix: Mix = {}): WidthOptions {
  if (mix[name]) return { mixnmatchDims: mix[name] };
  const [, kind, n] = /^(level|dims)(\d+)$/.exec(name)!;
  return kind === 'level' ? { mrlLevel: Number(n) } : { mixnmatchDims: Number(n) };
}

function named(tensors: Record<string, Tensor>, prefix: string): [string, Tensor][] {
  return Object.entries(tensors).flatMap(([name, value]) =>
    name.startsWith(prefix) ? [[name.slice(prefix.length), value] as [string, Tensor]] : [],
  );
}

/** What each standalone block was made with, beyond its shapes. */
const BLOCK_OPTIONS: Record<string, object> = {
  'block-dt-limit': { dtLimit: [0.01, 0.05] },
  'block-no-norm': { rmsnorm: false },
  'block-norm-before-gate': { normBeforeGate: true },
};

for (const folder of GOLDEN_FOLDERS) {
  describe(`goldens in ${basename(folder)}`, () => {
    for (const file of readdirSync(folder).filter((name) => name.startsWith('block'))) {
      test(file, async () => {
        const golden = await readTensors(`${folder}/${file}`);
        const dModel = golden['x']!.shape[2]!;
        const dState = (golden['param.conv1d.weight']!.shape[0]! - 2 * dModel) / 2;
        await using block = await MatMamba2.create({ dModel, dState, ...BLOCK_OPTIONS[basename(file, '.safetensors')] });
        await block.loadStateDict(Object.fromEntries(named(golden, 'param.')));
        const outputs = named(golden, 'y.');
        expect(outputs.length).toBeGreaterThan(2);
        for (const [name, expected] of outputs) {
          const y = await block.forward(golden['x']!, widthOf(name));
          expect(relativeError(y.toFloat32(), expected.toFloat32()), name).toBeLessThan(TOLERANCE);
        }
      });
    }

    for (const name of ['lm', 'lm-untied'].filter((one) => existsSync(`${folder}/${one}`))) {
      test(`${name}: logits, greedy tokens, step by step`, async () => {
        const golden = await readTensors(`${folder}/${name}/golden.safetensors`);
        const { mix } = readJson<{ mix: Mix }>(`${folder}/${name}/golden.json`);
        await using lm = await MatMambaLMHeadModel.fromPretrained(`${folder}/${name}`);
        const ids = golden['ids']!;
        const outputs = named(golden, 'logits.');
        expect(outputs.length).toBeGreaterThan(4);
        for (const [width, expected] of outputs) {
          const { logits } = await lm.forward(ids, widthOf(width, mix));
          expect(relativeError(logits.toFloat32(), expected.toFloat32()), width).toBeLessThan(TOLERANCE);
        }
        await checkSteps(lm, ids, golden['greedy.full']!, golden['steplogits.full']);
      });
    }

    test('vision: logits and features', async () => {
      const golden = await readTensors(`${folder}/vision/golden.safetensors`);
      const { mix } = readJson<{ mix: Mix }>(`${folder}/vision/golden.json`);
      await using vision = await MatMamba2Vision.fromPretrained(`${folder}/vision`);
      const outputs = named(golden, 'logits.');
      expect(outputs.length).toBeGreaterThan(4);
      for (const [width, expected] of outputs) {
        const { logits, features } = await vision.forward(golden['x']!, { ...widthOf(width, mix), returnFeatures: true });
        expect(relativeError(logits.toFloat32(), expected.toFloat32()), width).toBeLessThan(TOLERANCE);
        const expectedFeatures = golden[`features.${width}`];
        if (expectedFeatures)
          expect(relativeError(features.toFloat32(), expectedFeatures.toFloat32()), width).toBeLessThan(TOLERANCE);
      }
    });
  });
}

/** Prefill of 16 tokens, then greedy decoding one token at a time, as the original did. */
async function checkSteps(lm: MatMambaLMHeadModel, ids: Tensor, greedy: Tensor, stepLogits: Tensor | undefined): Promise<void> {
  const [batch, length] = ids.shape as [number, number];
  const steps = greedy.shape[1]!;
  const PREFILL = 16;
  await using state = lm.createState({ batch });
  const prompt = Int32Array.from(
    { length: batch * PREFILL },
    (_, i) => ids.array[Math.floor(i / PREFILL) * length + (i % PREFILL)] as number,
  );
  let { logits } = await lm.forward(tensor(prompt, [batch, PREFILL]), { state, numLastTokens: 1 });
  const V = logits.shape[2]!;
  const got: number[][] = Array.from({ length: batch }, () => []);
  const all = stepLogits && new Float32Array(stepLogits.size);
  for (let step = 0; step < steps; step++) {
    const values = logits.toFloat32();
    const next = Int32Array.from({ length: batch }, (_, b) => {
      const row = values.subarray(b * V, (b + 1) * V);
      all?.set(row, (b * stepLogits!.shape[1]! + step) * V);
      return row.indexOf(Math.max(...row));
    });
    for (const [b, id] of next.entries()) got[b]!.push(id);
    ({ logits } = await lm.forward(tensor(next, [batch, 1]), { state, numLastTokens: 1 }));
  }
  expect(got.flat()).toEqual(Array.from(greedy.array as Int32Array));
  if (!all || !stepLogits) return;
  for (let b = 0; b < batch; b++)
    all.set(logits.toFloat32().subarray(b * V, (b + 1) * V), (b * stepLogits.shape[1]! + steps) * V);
  expect(relativeError(all, stepLogits.toFloat32())).toBeLessThan(TOLERANCE);
}
