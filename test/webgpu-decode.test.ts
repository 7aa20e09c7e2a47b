/**
 * Tokens of a language model on WebGPU, one layer in three dispatches, against the same tokens on the CPU: every option of a
 * mixer, sequences that stand still, shapes that run node by node.
 */

import { afterAll, describe, expect, test } from 'vitest';
import type { OpProfile } from '../src/backends/backend.ts';
import { type LMForwardOptions, type MambaConfig, MatMambaLMHeadModel, tensor } from '../src/index.ts';
import { checkClose, checkSame } from './support/close.ts';
import { perturbed, randomIds } from './support/reference-model.ts';
import { openTestWebGpu } from './support/webgpu-device.ts';

const { backend, reason } = await openTestWebGpu();
afterAll(() => backend?.dispose());

type Config = Partial<Omit<MambaConfig, 'ssmCfg'>> & { readonly ssmCfg?: Partial<MambaConfig['ssmCfg']> };
interface Setting extends Config {
  readonly batch?: number;
  /** How many tokens of each sequence are real, in every step. */
  readonly lengths?: readonly number[];
  readonly level?: number;
  /** Runs node by node. */
  readonly apart?: boolean;
}

const STEPS = 3;
const LIMIT_MS = 120_000;

/** Logits of every step, and the states afterwards. */
async function decoded(
  lm: MatMambaLMHeadModel,
  { batch = 1, lengths, level = 1 }: Setting,
): Promise<{ logits: Float32Array[]; slots: readonly Uint8Array[]; ops: string[] }> {
  await using state = lm.createState({ batch });
  const logits: Float32Array[] = [];
  let profile: readonly OpProfile[] = [];
  for (let step = 0; step < STEPS; step++) {
    const ids = tensor(randomIds(batch, lm.vocabSize, step), [batch, 1]);
    const options: LMForwardOptions = { state, mrlLevel: level, ...(lengths && step > 0 ? { lengths: [...lengths] } : {}) };
    const last = step === STEPS - 1 ? { onProfile: (ops: readonly OpProfile[]) => void (profile = ops) } : {};
    logits.push((await lm.forward(ids, { ...options, ...last })).logits.toFloat32());
  }
  return { logits, slots: (await state.snapshot()).slots, ops: profile.map(({ op }) => op) };
}

async function compare({ apart = false, ...setting }: Setting): Promise<void> {
  const { batch: _, lengths, level: __, ssmCfg = {}, ...rest } = setting;
  const config = { dModel: 64, nLayer: 2, vocabSize: 40, ...rest, ssmCfg: { dState: 16, ...ssmCfg } };
  await using cpu = await MatMambaLMHeadModel.create(config, { threads: 1, blas: 'off', seed: 3 });
  const weights = perturbed(cpu.stateDict(), 1);
  await using lm = await MatMambaLMHeadModel.create(config, { device: 'webgpu', seed: 4 });
  for (const model of [cpu, lm]) await model.loadStateDict(weights);
  const [expected, got] = [await decoded(cpu, setting), await decoded(lm, setting)];
  expect(got.ops.includes('decode_mix')).toBe(!apart);
  const { vocabSize } = lm;
  for (const [step, logits] of got.logits.entries()) {
    for (const [row, length] of (lengths ?? [1]).entries()) {
      // What a sequence without a token says means nothing.
      if (step > 0 && length === 0) continue;
      const span = [row * vocabSize, lengths ? (row + 1) * vocabSize : logits.length] as const;
      checkClose(logits.subarray(...span), expected.logits[step]!.subarray(...span), 5e-6, `step ${step}, sequence ${row}`);
    }
  }
  for (const [i, slot] of got.slots.entries()) {
    const floats = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.slice().buffer);
    checkClose(floats(slot), floats(expected.slots[i]!), 5e-6, `state ${i}`);
  }
  checkSame(new Float32Array((await decoded(lm, setting)).logits[2]!), got.logits[2]!, 'the same tokens again');
}

describe.skipIf(!backend)(backend ? 'decoding on WebGPU' : `decoding on WebGPU: ${reason}`, () => {
  test.each<[string, Setting]>([
    ['as usual', {}],
    ['a submodel of three sequences', { batch: 3, level: 4 }],
    ['sequences that stand still', { batch: 3, lengths: [1, 0, 1] }],
    ['heads of 3, a state of 24', { dModel: 96, ssmCfg: { dState: 24 } }],
    ['biases, d per channel, limits of dt', { ssmCfg: { bias: true, DHasHdim: true, dtLimit: [0.02, 0.1] } }],
    ['no bias of the convolution, norm before gate', { ssmCfg: { convBias: false, normBeforeGate: true } }],
    ['no norm behind the scan', { ssmCfg: { rmsnorm: false } }],
    ['layer norm', { rmsNorm: false, batch: 2 }],
    ['an MLP', { dIntermediate: 128 }],
    ['three taps, node by node', { ssmCfg: { dConv: 3 }, apart: true }],
    ['rows that fit no workgroup, node by node', { dModel: 256, batch: 8, nLayer: 1, apart: true }],
  ])(
    '%s',
    async (_, setting) => {
      await compare(setting);
    },
    LIMIT_MS,
  );
});
