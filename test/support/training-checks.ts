/** Gradients and four joint AdamW steps of the language model, gradients of the vision model, against the original. */

import { gradientSpec } from '../../src/graph/differentiate.ts';
import { MatMamba2Vision, MatMambaLMHeadModel, type ModelOptions, type Tensor } from '../../src/index.ts';
import type { TrainableModel, TrainingShape } from '../../src/models/training.ts';
import { TrainingEngine } from '../../src/train/engine.ts';
import type { ModelDType } from '../../src/backends/backend.ts';
import { CUDA_TOLERANCES, type Measured, checkClose, checkFigure, checkRatio, checkThat } from './close.ts';
import { readJson, readTensors } from './golden.ts';

/** Where a golden training is repeated, and how far it may be off. */
export interface TrainingSetting {
  readonly options: Pick<ModelOptions, 'device' | 'dtype'>;
  readonly tolerances: {
    /** Relative L2 error of each gradient. */
    readonly gradient: number;
    /** Difference of losses, nats. */
    readonly loss: number;
    /** Norms of gradients, as a part of the original's. */
    readonly norm: number;
    /** Norms of parameters after four steps, likewise. */
    readonly parameterNorm: number;
  };
  readonly measured?: Measured;
}

/** In the dtypes that train. */
export const TRAINING_TOLERANCES: Readonly<Partial<Record<ModelDType, TrainingSetting['tolerances']>>> = {
  f32: { gradient: CUDA_TOLERANCES.f32.gradient, loss: 2e-4, norm: 1e-3, parameterNorm: 1e-5 },
  tf32: { gradient: CUDA_TOLERANCES.tf32.gradient, loss: 1e-3, norm: 1e-2, parameterNorm: 1e-4 },
  'bf16-mixed': { gradient: CUDA_TOLERANCES['bf16-mixed'].gradient, loss: 1e-2, norm: 5e-2, parameterNorm: 1e-3 },
};

const LEVELS = [1, 2, 4, 8];
const LEARNING_RATE = 1e-3;

interface LanguageGolden {
  readonly grad_norms: Record<string, number>;
  readonly train: readonly { readonly losses: readonly number[]; readonly grad_norm: number }[];
  readonly param_norms_after: Record<string, number>;
}

/** Every gradient that the golden prints, and the norms of all. */
async function checkGradients(
  model: TrainableModel,
  golden: Record<string, Tensor>,
  norms: Record<string, number>,
  { tolerances, measured }: TrainingSetting,
): Promise<void> {
  let compared = 0;
  for (const spec of model.parameters.declared.values()) {
    const got = await model.runtime.weight(gradientSpec(spec).name).read(0, spec.shape[0]!);
    const expected = golden[`grad.${spec.name}`];
    if (expected) checkClose(got, expected.toFloat32(), tolerances.gradient, `gradient of ${spec.name}`, measured);
    if (expected) compared++;
    const figure = norms[spec.name];
    if (figure !== undefined) checkRatio(norm(got), figure, tolerances.norm, `norm of the gradient of ${spec.name}`);
  }
  checkThat(compared > 3, 'the golden holds several gradients');
}

function norm(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return Math.sqrt(sum);
}

function mean(values: Float32Array): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/** Four joint steps of a language model: losses of every level, gradients of the first step, parameters at the end. */
export async function checkLanguageTraining(folder: string, recompute: boolean, setting: TrainingSetting): Promise<void> {
  const { options, tolerances, measured } = setting;
  const golden = await readTensors(`${folder}/golden.safetensors`);
  const figures = readJson<LanguageGolden>(`${folder}/golden.json`);
  await using lm = await MatMambaLMHeadModel.fromPretrained(folder, options);
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
      checkFigure(loss, expected.losses[i]!, tolerances.loss, `loss of step ${step}, level ${level}`, measured);
    }
    if (step === 0) await checkGradients(lm, golden, figures.grad_norms, setting);
    const gradientNorm = await engine.update(step + 1, LEARNING_RATE);
    checkRatio(gradientNorm, expected.grad_norm, tolerances.norm, `gradient norm of step ${step}`);
  }
  for (const [parameter, tensor] of Object.entries(lm.stateDict())) {
    const expected = figures.param_norms_after[parameter];
    if (expected === undefined) continue;
    await tensor.data();
    checkRatio(norm(tensor.toFloat32()), expected, tolerances.parameterNorm, `norm of ${parameter}`);
  }
  engine.dispose();
}

/** The joint loss of a vision model and its gradients. */
export async function checkVisionTraining(folder: string, setting: TrainingSetting): Promise<void> {
  const golden = await readTensors(`${folder}/golden.safetensors`);
  const figures = readJson<{ loss: number; targets: number[]; grad_norms: Record<string, number> }>(`${folder}/golden.json`);
  await using vision = await MatMamba2Vision.fromPretrained(folder, setting.options);
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
  checkFigure(total, figures.loss, setting.tolerances.loss, 'joint loss', setting.measured);
  await checkGradients(vision, golden, figures.grad_norms, setting);
  engine.dispose();
}
