/** Fresh weights: the distributions of the design's section "Initialisation", and their repetition by seed. */

import { describe, expect, test } from 'vitest';
import { MatMamba2, MatMamba2Vision, MatMambaLMHeadModel, type Tensor } from '../index.ts';

const OPTIONS = { threads: 1 } as const;

/** Largest distance between the empirical distribution and `cdf`, in units of its 1% bound. */
function kolmogorovSmirnov(values: Float32Array, cdf: (x: number) => number): number {
  const sorted = Float64Array.from(values).sort();
  let largest = 0;
  for (const [i, x] of sorted.entries()) {
    largest = Math.max(largest, Math.abs(cdf(x) - i / sorted.length), Math.abs(cdf(x) - (i + 1) / sorted.length));
  }
  return largest / (1.63 / Math.sqrt(sorted.length));
}

const uniformCdf =
  (low: number, high: number) =>
  (x: number): number =>
    Math.min(1, Math.max(0, (x - low) / (high - low)));

/** Abramowitz & Stegun 7.1.26, good to 1.5e-7. */
function normalCdf(x: number): number {
  const t = 1 / (1 + (0.3275911 * Math.abs(x)) / Math.SQRT2);
  const tail =
    t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * Math.exp((-x * x) / 2);
  return x < 0 ? tail / 2 : 1 - tail / 2;
}

function expectUniform(value: Tensor | undefined, bound: number, what: string): void {
  const floats = value!.toFloat32();
  expect(Math.max(...floats.map(Math.abs).subarray(0, 100_000)), what).toBeLessThanOrEqual(bound * (1 + 1e-6));
  expect(kolmogorovSmirnov(floats, uniformCdf(-bound, bound)), what).toBeLessThan(1);
}
function expectNormal(value: Tensor | undefined, deviation: number, what: string): void {
  expect(
    kolmogorovSmirnov(value!.toFloat32(), (x) => normalCdf(x / deviation)),
    what,
  ).toBeLessThan(1);
}
function expectAll(value: Tensor | undefined, constant: number, what: string): void {
  expect(
    value!.toFloat32().every((x) => x === constant),
    what,
  ).toBe(true);
}

/** The mixers' own parameters; H = 64 values of A_log and dt_bias in each. */
function checkMixers(mixers: readonly Record<string, Tensor>[], D: number, outBound: number): void {
  const E = 2 * D;
  for (const mixer of mixers) {
    expectUniform(mixer['in_proj.weight'], 1 / Math.sqrt(D), 'in_proj');
    expectUniform(mixer['out_proj.weight'], outBound, 'out_proj');
    expectUniform(mixer['conv1d.weight'], 1 / 2, 'conv1d.weight');
    expectUniform(mixer['conv1d.bias'], 1 / 2, 'conv1d.bias');
    expectAll(mixer['D'], 1, 'D');
    expectAll(mixer['norm.weight'], 1, 'norm');
    expect(mixer['norm.weight']!.shape).toEqual([E]);
  }
  const all = (name: string): Float32Array => Float32Array.from(mixers.flatMap((mixer) => [...mixer[name]!.toFloat32()]));
  expect(kolmogorovSmirnov(all('A_log').map(Math.exp), uniformCdf(1, 16)), 'A').toBeLessThan(1);
  const logSteps = all('dt_bias').map((bias) => Math.log(Math.log1p(Math.exp(bias))));
  expect(kolmogorovSmirnov(logSteps, uniformCdf(Math.log(1e-3), Math.log(0.1))), 'dt').toBeLessThan(1);
  expect(Math.min(...logSteps)).toBeGreaterThan(Math.log(1e-3) - 1e-4);
  expect(Math.max(...logSteps)).toBeLessThan(Math.log(0.1) + 1e-4);
}

function under(weights: Record<string, Tensor>, prefix: string): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(weights).flatMap(([name, value]) => (name.startsWith(prefix) ? [[name.slice(prefix.length), value]] : [])),
  );
}
function mixersOf(weights: Record<string, Tensor>, prefix: string, nLayer: number): Record<string, Tensor>[] {
  return Array.from({ length: nLayer }, (_, i) => under(weights, `${prefix}layers.${i}.mixer.`));
}

describe('initial weights', () => {
  test('block: out_proj is not scaled, biases as nn.Linear has them', async () => {
    await using block = await MatMamba2.create({ dModel: 128, dState: 16, bias: true }, OPTIONS);
    const weights = block.stateDict();
    checkMixers([weights], 128, 1 / Math.sqrt(256));
    expectUniform(weights['in_proj.bias'], 1 / Math.sqrt(128), 'in_proj.bias');
    expectUniform(weights['out_proj.bias'], 1 / Math.sqrt(256), 'out_proj.bias');
  });

  test('language model, tied and untied, with MLP', async () => {
    const nLayer = 6;
    const config = { dModel: 64, nLayer, vocabSize: 500, dIntermediate: 100, ssmCfg: { dState: 16, bias: true } };
    await using lm = await MatMambaLMHeadModel.create({ ...config, tieEmbeddings: false, rmsNorm: false }, OPTIONS);
    const weights = lm.stateDict();
    checkMixers(mixersOf(weights, 'backbone.', nLayer), 64, 1 / Math.sqrt(128) / Math.sqrt(nLayer));
    expectNormal(weights['backbone.embedding.weight'], 0.02, 'embedding');
    expectUniform(weights['lm_head.weight'], 1 / 8, 'lm_head');
    expectUniform(weights['backbone.layers.3.mlp.fc1.weight'], 1 / 8, 'fc1');
    expectUniform(weights['backbone.layers.3.mlp.fc2.weight'], 1 / Math.sqrt(128) / Math.sqrt(nLayer), 'fc2');
    for (const name of ['in_proj.bias', 'out_proj.bias']) expectAll(weights[`backbone.layers.0.mixer.${name}`], 0, name);
    for (const name of ['layers.0.norm', 'layers.0.norm2', 'norm_f']) {
      expectAll(weights[`backbone.${name}.weight`], 1, name);
      expectAll(weights[`backbone.${name}.bias`], 0, name);
    }
    await using tied = await MatMambaLMHeadModel.create(config, OPTIONS);
    const shared = tied.stateDict();
    expect(shared['lm_head.weight']!.toFloat32()).toEqual(shared['backbone.embedding.weight']!.toFloat32());
    expectNormal(shared['lm_head.weight'], 0.02, 'tied head');
    expect('backbone.norm_f.bias' in shared).toBe(false);
  });

  test('vision model: sqrt(2 * n_layer) with an MLP only', async () => {
    const nLayer = 6;
    const config = { dModel: 64, nLayer, nClasses: 50, patchSize: 8, imageSize: 64, ssmCfg: { dState: 16 } };
    await using plain = await MatMamba2Vision.create(config, OPTIONS);
    const weights = plain.stateDict();
    checkMixers(mixersOf(weights, '', nLayer), 64, 1 / Math.sqrt(128) / Math.sqrt(nLayer));
    expectUniform(weights['patch_embed.proj.weight'], 1 / Math.sqrt(3 * 64), 'patch_embed');
    expectUniform(weights['patch_embed.proj.bias'], 1 / Math.sqrt(3 * 64), 'patch_embed.bias');
    expect(weights['patch_embed.proj.weight']!.shape).toEqual([64, 3, 8, 8]);
    expectAll(weights['cls_token'], 0, 'cls_token');
    expectNormal(weights['pos_embed'], 0.02, 'pos_embed');
    expect(weights['pos_embed']!.shape).toEqual([1, 65, 64]);
    expectUniform(weights['head.weight'], 1 / 8, 'head');
    expectAll(weights['head.bias'], 0, 'head.bias');
    await using withMlp = await MatMamba2Vision.create({ ...config, dIntermediate: 128 }, OPTIONS);
    const scaled = withMlp.stateDict();
    checkMixers(mixersOf(scaled, '', nLayer), 64, 1 / Math.sqrt(128) / Math.sqrt(2 * nLayer));
    expectUniform(scaled['layers.2.mlp.fc2.weight'], 1 / Math.sqrt(128) / Math.sqrt(2 * nLayer), 'fc2');
  });

  test('the config changes what it says it changes', async () => {
    await using block = await MatMamba2.create(
      {
        dModel: 64,
        dState: 8,
        convInit: 0.05,
        dConv: 3,
        AInitRange: [2, 3],
        dtMin: 0.01,
        dtMax: 0.02,
        dtInitFloor: 0.015,
        DHasHdim: true,
      },
      OPTIONS,
    );
    const weights = block.stateDict();
    expectUniform(weights['conv1d.weight'], 0.05, 'conv_init');
    expectUniform(weights['conv1d.bias'], 1 / Math.sqrt(3), 'conv1d.bias');
    const A = weights['A_log']!.toFloat32().map(Math.exp);
    expect(Math.min(...A)).toBeGreaterThanOrEqual(2 - 1e-5);
    expect(Math.max(...A)).toBeLessThanOrEqual(3 + 1e-5);
    const steps = weights['dt_bias']!.toFloat32().map((bias) => Math.log1p(Math.exp(bias)));
    expect(Math.min(...steps)).toBeCloseTo(0.015, 5);
    expect(Math.max(...steps)).toBeLessThanOrEqual(0.02 + 1e-6);
    expect(weights['D']!.shape).toEqual([128]);
  });

  test('the same seed gives the same bits, another seed others, and no two layers are alike', async () => {
    const make = (seed: number): Promise<MatMambaLMHeadModel> =>
      MatMambaLMHeadModel.create({ dModel: 32, nLayer: 2, vocabSize: 40, ssmCfg: { dState: 8 } }, { ...OPTIONS, seed });
    await using a = await make(3);
    await using b = await make(3);
    await using c = await make(4);
    await using big = await make(2 ** 32 + 3);
    const [wa, wb, wc, wBig] = [a, b, c, big].map((lm) => lm.stateDict()) as [
      Record<string, Tensor>,
      Record<string, Tensor>,
      Record<string, Tensor>,
      Record<string, Tensor>,
    ];
    for (const [name, value] of Object.entries(wa)) {
      expect(wb[name]!.toFloat32(), name).toEqual(value.toFloat32());
      if (/proj|conv1d|A_log|dt_bias|embedding/.test(name)) {
        expect(wc[name]!.toFloat32(), name).not.toEqual(value.toFloat32());
        expect(wBig[name]!.toFloat32(), name).not.toEqual(value.toFloat32());
      }
    }
    const layer = (i: number): Float32Array => wa[`backbone.layers.${i}.mixer.in_proj.weight`]!.toFloat32();
    expect(layer(0)).not.toEqual(layer(1));
  });
});
