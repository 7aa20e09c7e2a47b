/** Gradients and four joint AdamW steps of the language model, gradients of the vision model, against the original. */

import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { describe, expect, test } from 'vitest';
import { gradientSpec } from '../src/graph/differentiate.ts';
import { MatMamba2Vision, MatMambaLMHeadModel, type Tensor } from '../src/index.ts';
import type { TrainableModel, TrainingShape } from '../src/models/training.ts';
import { TrainingEngine } from '../src/train/engine.ts';
import { GOLDEN_FOLDERS, readJson, readTensors } from './support/golden.ts';
import { relativeError } from './support/run-case.ts';

const GRADIENT_TOLERANCE = 1e-4;
const LOSS_TOLERANCE = 2e-4;
const NORM_TOLERANCE = 1e-3;
const PARAMETER_NORM_TOLERANCE = 1e-5;
const LEVELS = [1, 2, 4, 8];
const LEARNING_RATE = 1e-3;

interface LanguageGolden {
  readonly grad_norms: Record<string, number>;
  readonly train: readonly { readonly losses: readonly number[]; readonly grad_norm: number }[];
  readonly param_norms_after: Record<string, number>;
}

/** Every gradient that the golden prints, and the norms of all. */
function checkGradients(model: TrainableModel, golden: Record<string, Tensor>, norms: Record<string, number>): void {
  let compared = 0;
  for (const spec of model.parameters.declared.values()) {
    const got = model.runtime.weight(gradientSpec(spec).name).read(0, spec.shape[0]!);
    const expected = golden[`grad.${spec.name}`];
    if (expected) expect(relativeError(got, expected.toFloat32()), spec.name).toBeLessThan(GRADIENT_TOLERANCE);
    if (expected) compared++;
    const figure = norms[spec.name];
    if (figure !== undefined) expect(Math.abs(norm(got) / figure - 1), `norm of ${spec.name}`).toBeLessThan(NORM_TOLERANCE);
  }
  expect(compared).toBeGreaterThan(3);
}

function norm(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return Math.sqrt(sum);
}

function mean(values: Float32Array): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

for (const folder of GOLDEN_FOLDERS) {
  describe(`training goldens in ${basename(folder)}`, () => {
    for (const name of ['lm', 'lm-untied'].filter((one) => existsSync(`${folder}/${one}`))) {
      for (const recompute of [false, true]) {
        test(`${name}${recompute ? ', activations recomputed' : ''}`, async () => {
          const golden = await readTensors(`${folder}/${name}/golden.safetensors`);
          const figures = readJson<LanguageGolden>(`${folder}/${name}/golden.json`);
          await using lm = await MatMambaLMHeadModel.fromPretrained(`${folder}/${name}`);
          const engine = await TrainingEngine.attach(lm);
          const [batch, length] = golden['ids']!.shape as [number, number];
          const scale = new Float32Array(batch * length).fill(1 / (batch * length * LEVELS.length));
          const inputs = { ids: golden['ids']!.array, targets: golden['targets']!.array, scale, seed: new Int32Array(3) };
          const accumulate = async (level: number): Promise<number> => {
            const dims = Array.from({ length: lm.config.nLayer }, () => lm.config.dModel / level);
            const shape: TrainingShape = { batch, length, dims, recompute, projDropRate: 0, dropPathRate: 0, distill: 0 };
            return mean(await engine.accumulate(shape, inputs));
          };
          for (const [step, expected] of figures.train.entries()) {
            for (const [i, level] of LEVELS.entries()) {
              const loss = await accumulate(level);
              expect(Math.abs(loss - expected.losses[i]!), `step ${step}, level ${level}`).toBeLessThan(LOSS_TOLERANCE);
            }
            if (step === 0) checkGradients(lm, golden, figures.grad_norms);
            const gradientNorm = await engine.update(step + 1, LEARNING_RATE);
            expect(Math.abs(gradientNorm / expected.grad_norm - 1), `gradient norm of step ${step}`).toBeLessThan(NORM_TOLERANCE);
          }
          for (const [parameter, tensor] of Object.entries(lm.stateDict())) {
            const expected = figures.param_norms_after[parameter];
            if (expected === undefined) continue;
            expect(Math.abs(norm(tensor.toFloat32()) / expected - 1), parameter).toBeLessThan(PARAMETER_NORM_TOLERANCE);
          }
          engine.dispose();
        });
      }
    }

    test('vision', async () => {
      const golden = await readTensors(`${folder}/vision/golden.safetensors`);
      const figures = readJson<{ loss: number; targets: number[]; grad_norms: Record<string, number> }>(
        `${folder}/vision/golden.json`,
      );
      await using vision = await MatMamba2Vision.fromPretrained(`${folder}/vision`);
      const engine = await TrainingEngine.attach(vision);
      const { nClasses, nLayer, dModel } = vision.config;
      const batch = figures.targets.length;
      const targets = new Float32Array(batch * nClasses);
      for (const [i, label] of figures.targets.entries()) targets[i * nClasses + label] = 1;
      const scale = new Float32Array(batch).fill(1 / (batch * LEVELS.length));
      const inputs = { images: golden['x']!.toFloat32(), targets, scale, seed: new Int32Array(3) };
      let total = 0;
      for (const level of LEVELS) {
        const dims = Array.from({ length: nLayer }, () => dModel / level);
        const shape: TrainingShape = { batch, length: 0, dims, recompute: false, projDropRate: 0, dropPathRate: 0, distill: 0 };
        total += mean(await engine.accumulate(shape, inputs)) / LEVELS.length;
      }
      expect(Math.abs(total - figures.loss)).toBeLessThan(LOSS_TOLERANCE);
      checkGradients(vision, golden, figures.grad_norms);
      engine.dispose();
    });
  });
}
