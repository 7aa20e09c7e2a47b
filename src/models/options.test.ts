/** Every option of every model, at many widths, against the float64 model of test/support. */

import { describe, expect, test } from 'vitest';
import {
  perturbed,
  randomFloats,
  randomIds,
  referenceBlock,
  referenceLogits,
  referenceVision,
} from '../../test/support/reference-model.ts';
import { relativeError } from '../../test/support/run-case.ts';
import {
  MatMamba2,
  MatMamba2Vision,
  MatMambaLMHeadModel,
  type MatMamba2Config,
  type SsmConfig,
  tensor,
  widthStep,
} from '../index.ts';
import { SSM_DEFAULTS } from './config.ts';

const TOLERANCE = 2e-5;
const OPTIONS = { threads: 1 } as const;

const SSM_OPTIONS: Record<string, Partial<SsmConfig>> = {
  plain: {},
  'conv_bias false': { convBias: false },
  bias: { bias: true },
  D_has_hdim: { DHasHdim: true },
  'dt_limit of two sides': { dtLimit: [0.02, 0.05] },
  'dt_limit from below': { dtLimit: [0.05, Infinity] },
  'rmsnorm false': { rmsnorm: false },
  norm_before_gate: { normBeforeGate: true },
  'd_conv 2': { dConv: 2 },
  'd_conv 3': { dConv: 3, convBias: false },
  'd_state 5': { dState: 5 },
  'd_state 1': { dState: 1 },
  'd_state 33, everything': { dState: 33, bias: true, DHasHdim: true, normBeforeGate: true, dConv: 3, dtLimit: [0.01, 0.08] },
  'headdim and chunk_size do not bind': { headdim: 7, chunkSize: 3 },
};

/** The narrowest, an odd one, a level, and the full width. */
function widthsOf(dModel: number): number[] {
  const step = widthStep(dModel);
  return [step, Math.floor(dModel / step / 3) * step, dModel / 2, dModel];
}

describe('block', () => {
  for (const [name, options] of Object.entries(SSM_OPTIONS)) {
    test(name, async () => {
      for (const dModel of [32, 96]) {
        const config: MatMamba2Config = { dModel, ...SSM_DEFAULTS, dState: 16, ...options };
        await using block = await MatMamba2.create(config, OPTIONS);
        const weights = perturbed(block.stateDict(), 7);
        await block.loadStateDict(weights);
        for (const length of [1, 3, 37]) {
          const x = tensor(randomFloats(2 * length * dModel, length), [2, length, dModel]);
          for (const dims of widthsOf(dModel)) {
            const y = await block.forward(x, { mixnmatchDims: dims });
            expect(
              relativeError(y.toFloat32(), referenceBlock(weights, config, x, dims)),
              `D ${dModel}, T ${length}, dims ${dims}`,
            ).toBeLessThan(TOLERANCE);
          }
        }
      }
    });
  }

  test('softplus is the identity above 20, and tiny steps stay exact', async () => {
    const config: MatMamba2Config = { dModel: 32, ...SSM_DEFAULTS, dState: 8 };
    await using block = await MatMamba2.create(config, OPTIONS);
    const weights = block.stateDict();
    const dtBias = Float32Array.from({ length: 64 }, (_, i) => [-30, -12, 0, 19.9, 20.1, 40][i % 6]!);
    weights['dt_bias'] = tensor(dtBias, [64]);
    await block.loadStateDict(weights);
    const x = tensor(randomFloats(40 * 32, 3), [1, 40, 32]);
    const y = await block.forward(x);
    expect(relativeError(y.toFloat32(), referenceBlock(weights, config, x, 32))).toBeLessThan(TOLERANCE);
  });
});

describe('language model', () => {
  const variants = {
    'untied, LayerNorm': { tieEmbeddings: false, rmsNorm: false },
    'tied, MLP': { dIntermediate: 70 },
    'untied, MLP, LayerNorm, everything': {
      tieEmbeddings: false,
      rmsNorm: false,
      dIntermediate: 200,
      ssmCfg: { dState: 5, bias: true, DHasHdim: true, rmsnorm: false, dConv: 2 },
    },
    'norm_before_gate, dt_limit': {
      ssmCfg: { dState: 16, normBeforeGate: true, dtLimit: [0.01, 0.1] as const, convBias: false },
    },
    'padded vocabulary': { vocabSize: 57, padVocabSizeMultiple: 16, fusedAddNorm: false, residualInFp32: false },
  };
  for (const [name, variant] of Object.entries(variants)) {
    test(name, async () => {
      await using lm = await MatMambaLMHeadModel.create(
        { dModel: 64, nLayer: 2, vocabSize: 61, ssmCfg: { dState: 16 }, ...variant },
        OPTIONS,
      );
      const weights = perturbed(lm.stateDict(), 11);
      await lm.loadStateDict(weights);
      const ssm = { ...SSM_DEFAULTS, ...lm.config.ssmCfg };
      const ids = tensor(randomIds(2 * 19, 57, 5), [2, 19]);
      for (const dims of [
        [64, 64],
        [8, 8],
        [33, 2],
        [1, 64],
      ]) {
        const { logits } = await lm.forward(ids, { mixnmatchDims: dims });
        expect(logits.shape).toEqual([2, 19, lm.vocabSize]);
        const expected = referenceLogits(weights, lm.config, ssm, ids, dims);
        expect(relativeError(logits.toFloat32(), expected), `dims ${dims.join()}`).toBeLessThan(TOLERANCE);
      }
      await checkLoss(lm, ids);
    });
  }
});

/** The loss is the cross-entropy of the logits, also where a target is left out. */
async function checkLoss(lm: MatMambaLMHeadModel, ids: ReturnType<typeof tensor>): Promise<void> {
  const V = lm.vocabSize;
  const targets = randomIds(ids.size, V, 6).map((id, i) => (i % 5 === 0 ? -1 : id));
  const { logits } = await lm.forward(ids, { mrlLevel: 2 });
  const loss = await lm.loss(ids, tensor(targets, ids.shape), { mrlLevel: 2 });
  expect(loss.shape).toEqual(ids.shape);
  const values = logits.toFloat32();
  const expected = Array.from(targets, (target, t) => {
    if (target < 0) return 0;
    const row = [...values.subarray(t * V, (t + 1) * V)];
    const top = Math.max(...row);
    return top + Math.log(row.reduce((sum, value) => sum + Math.exp(value - top), 0)) - row[target]!;
  });
  expect(relativeError(loss.toFloat32(), expected)).toBeLessThan(1e-5);
}

describe('vision model', () => {
  const variants = {
    'class token': {},
    'mean of the patches': { pool: 'avg' as const },
    'RMSNorm, MLP': { rmsNorm: true, dIntermediate: 100 },
    'LayerNorm, MLP, mean, everything': {
      dIntermediate: 256,
      pool: 'avg' as const,
      normEpsilon: 1e-3,
      ssmCfg: { dState: 5, bias: true, rmsnorm: false, dConv: 3 },
    },
    'patch size 7': { patchSize: 7, imageSize: 21, nClasses: 3, fusedAddNorm: true, residualInFp32: true },
    'one patch': { patchSize: 8, imageSize: 8 },
  };
  for (const [name, variant] of Object.entries(variants)) {
    test(name, async () => {
      const given = { dModel: 64, nLayer: 2, nClasses: 11, patchSize: 8, imageSize: 24, ssmCfg: { dState: 16 }, ...variant };
      await using vision = await MatMamba2Vision.create(given, OPTIONS);
      const weights = perturbed(vision.stateDict(), 13);
      await vision.loadStateDict(weights);
      const S = vision.config.imageSize;
      const images = tensor(randomFloats(2 * 3 * S * S, 17), [2, 3, S, S]);
      const ssm = { ...SSM_DEFAULTS, ...vision.config.ssmCfg };
      for (const dims of [
        [64, 64],
        [16, 16],
        [5, 40],
      ]) {
        const expected = referenceVision(weights, vision.config, ssm, images, dims);
        const { logits, features } = await vision.forward(images, { mixnmatchDims: dims, returnFeatures: true });
        expect(relativeError(logits.toFloat32(), expected.logits), `dims ${dims.join()}`).toBeLessThan(TOLERANCE);
        expect(relativeError(features.toFloat32(), expected.features), `dims ${dims.join()}`).toBeLessThan(TOLERANCE);
        expect((await vision.forward(images, { mixnmatchDims: dims })).toFloat32()).toEqual(logits.toFloat32());
      }
    });
  }
});
