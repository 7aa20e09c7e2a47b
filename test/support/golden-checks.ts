/** Blocks, language models and vision models against what the original implementation computed, at every width it printed. */

import { existsSync, readdirSync } from 'node:fs';
import { basename } from 'node:path';
import {
  MatMamba2,
  MatMamba2Vision,
  MatMambaLMHeadModel,
  type ModelOptions,
  type Tensor,
  type WidthOptions,
  tensor,
} from '../../src/index.ts';
import { type Measured, checkClose, checkThat } from './close.ts';
import { readJson, readTensors } from './golden.ts';

/** Where and how exactly a golden is repeated. */
export interface GoldenSetting {
  readonly options: Pick<ModelOptions, 'device' | 'dtype'>;
  readonly tolerance: number;
  /** Greedy decoding must choose the original's tokens; a rounded model may prefer another where two are close. */
  readonly sameTokens: boolean;
  readonly measured?: Measured;
}

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

const BLOCK_OPTIONS: Record<string, object> = {
  'block-dt-limit': { dtLimit: [0.01, 0.05] },
  'block-no-norm': { rmsnorm: false },
  'block-norm-before-gate': { normBeforeGate: true },
};

/** What the standalone block of a golden file was made with, beyond its shapes. */
export function blockOptionsOf(file: string): object {
  return BLOCK_OPTIONS[basename(file, '.safetensors')] ?? {};
}

/** The files of blocks in a golden folder. */
export function goldenBlocks(folder: string): string[] {
  return readdirSync(folder).filter((name) => name.startsWith('block'));
}

/** The language models in a golden folder. */
export function goldenLanguageModels(folder: string): string[] {
  return ['lm', 'lm-untied'].filter((name) => existsSync(`${folder}/${name}`));
}

export async function checkBlock(path: string, { options, tolerance, measured }: GoldenSetting): Promise<void> {
  const golden = await readTensors(path);
  const dModel = golden['x']!.shape[2]!;
  const dState = (golden['param.conv1d.weight']!.shape[0]! - 2 * dModel) / 2;
  await using block = await MatMamba2.create({ dModel, dState, ...blockOptionsOf(path) }, options);
  await block.loadStateDict(Object.fromEntries(named(golden, 'param.')));
  const outputs = named(golden, 'y.');
  checkThat(outputs.length > 2, `${path} holds several widths`);
  for (const [name, expected] of outputs) {
    const y = await block.forward(golden['x']!, widthOf(name));
    checkClose(y.toFloat32(), expected.toFloat32(), tolerance, name, measured);
  }
}

/** Logits at every width, then prefill and single tokens. */
export async function checkLanguageModel(folder: string, setting: GoldenSetting): Promise<void> {
  const golden = await readTensors(`${folder}/golden.safetensors`);
  const { mix } = readJson<{ mix: Mix }>(`${folder}/golden.json`);
  await using lm = await MatMambaLMHeadModel.fromPretrained(folder, setting.options);
  const ids = golden['ids']!;
  const outputs = named(golden, 'logits.');
  checkThat(outputs.length > 4, `${folder} holds several widths`);
  for (const [width, expected] of outputs) {
    const { logits } = await lm.forward(ids, widthOf(width, mix));
    checkClose(logits.toFloat32(), expected.toFloat32(), setting.tolerance, width, setting.measured);
  }
  await checkSteps(lm, ids, golden['greedy.full']!, golden['steplogits.full'], setting);
}

export async function checkVision(folder: string, { options, tolerance, measured }: GoldenSetting): Promise<void> {
  const golden = await readTensors(`${folder}/golden.safetensors`);
  const { mix } = readJson<{ mix: Mix }>(`${folder}/golden.json`);
  await using vision = await MatMamba2Vision.fromPretrained(folder, options);
  const outputs = named(golden, 'logits.');
  checkThat(outputs.length > 4, `${folder} holds several widths`);
  for (const [width, expected] of outputs) {
    const { logits, features } = await vision.forward(golden['x']!, { ...widthOf(width, mix), returnFeatures: true });
    checkClose(logits.toFloat32(), expected.toFloat32(), tolerance, `logits, ${width}`, measured);
    const expectedFeatures = golden[`features.${width}`];
    if (expectedFeatures)
      checkClose(features.toFloat32(), expectedFeatures.toFloat32(), tolerance, `features, ${width}`, measured);
  }
}

/** Prefill of 16 tokens, then one token at a time, fed the tokens that the original chose. */
async function checkSteps(
  lm: MatMambaLMHeadModel,
  ids: Tensor,
  greedy: Tensor,
  stepLogits: Tensor | undefined,
  { tolerance, sameTokens, measured }: GoldenSetting,
): Promise<void> {
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
  const all = stepLogits && new Float32Array(stepLogits.size);
  for (let step = 0; step <= steps; step++) {
    const values = logits.toFloat32();
    for (let b = 0; b < batch; b++) all?.set(values.subarray(b * V, (b + 1) * V), (b * stepLogits!.shape[1]! + step) * V);
    if (step === steps) break;
    const next = Int32Array.from({ length: batch }, (_, b) => greedy.array[b * steps + step] as number);
    if (sameTokens) {
      for (const [b, expected] of next.entries()) {
        const row = values.subarray(b * V, (b + 1) * V);
        const mine = row.indexOf(Math.max(...row));
        checkThat(mine === expected, `greedy token ${step} of sequence ${b}: ${expected} expected, got ${mine}`);
      }
    }
    ({ logits } = await lm.forward(tensor(next, [batch, 1]), { state, numLastTokens: 1 }));
  }
  if (all && stepLogits) checkClose(all, stepLogits.toFloat32(), tolerance, 'logits step by step', measured);
}
