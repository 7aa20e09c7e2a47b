import { describe, expect, test } from 'vitest';
import { describeModel, kindOfConfig, sizeAt, specFromJson } from './description.ts';
import { MatMambaLMHeadModel } from './language-model.ts';
import { PRESETS } from './presets.ts';

describe('descriptions', () => {
  test('count the published sizes', () => {
    const parametersOf = (name: keyof typeof PRESETS): number => {
      const description = describeModel(PRESETS[name]);
      return sizeAt(description, description.dModel).parameters;
    };
    expect(parametersOf('lm-130m')).toBe(129_723_648);
    expect(parametersOf('vision-35m')).toBe(35_916_008);
    expect(parametersOf('vision-135m')).toBe(134_716_136);
    expect(parametersOf('lm-1.4b') / 1e9).toBeCloseTo(1.34, 1);
  });

  test('count narrower layers as smaller mixers', async () => {
    const config = {
      dModel: 96,
      nLayer: 3,
      vocabSize: 50,
      tieEmbeddings: false,
      dIntermediate: 64,
      ssmCfg: { dState: 16, bias: true, DHasHdim: true },
    };
    const description = describeModel({ kind: 'language', config });
    await using lm = await MatMambaLMHeadModel.create(config, { threads: 1, blas: 'off' });
    const full = sizeAt(description, 96);
    expect(full.parameters).toBe(lm.parameterCount);
    expect(full.bodyParameters).toBe(lm.bodyParameterCount);
    expect(full.bytes.f32).toBe(4 * lm.parameterCount);
    // A layer of e channels in h heads: rows of in_proj and its bias, of the convolution; dt, A, D; norm; columns of out_proj.
    const [D, N, P] = [96, 16, 3];
    const mixer = (dims: number): number => {
      const [e, h] = [2 * dims, (2 * dims) / P];
      return (2 * e + 2 * N + h) * (D + 1) + (e + 2 * N) * 5 + 2 * h + e + e + D * e + D;
    };
    expect(full.parameters - sizeAt(description, [96, 48, 3]).parameters).toBe(2 * mixer(96) - mixer(48) - mixer(3));
    expect(() => sizeAt(description, [96, 48])).toThrow(/2 widths for 3 layers/);
    expect(() => sizeAt(description, 50)).toThrow(/no width of a layer/);
  });

  test('tell the kind of a config', () => {
    expect(kindOfConfig({ d_model: 64, n_layer: 2, vocab_size: 100 })).toBe('language');
    expect(kindOfConfig({ d_model: 64, n_layer: 2, patch_size: 8 })).toBe('vision');
    expect(specFromJson({ d_model: 64, d_state: 16 }, 'config.json', () => {})).toEqual({
      kind: 'block',
      config: { dModel: 64, dState: 16 },
    });
    expect(() => kindOfConfig({ hidden_size: 3 })).toThrow(/no MatMamba model/);
  });
});
