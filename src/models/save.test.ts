/** Weights in and out: state dicts, saving and loading in every dtype and both formats, files that are wrong. */

import { readFile, writeFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { perturbed, randomFloats, randomIds } from '../../test/support/reference-model.ts';
import { saveTensors } from '../checkpoint/index.ts';
import { withFolder } from '../checkpoint/testing.ts';
import { type MambaConfig, MatMamba2, MatMamba2Vision, MatMambaLMHeadModel, Tensor, tensor } from '../index.ts';
import { floatToBf16, floatToF16, sizeOf } from '../tensor/index.ts';
import { declareLanguageModel } from './language-shape.ts';

const OPTIONS = { threads: 1 } as const;
const CONFIG: Partial<MambaConfig> = { dModel: 64, nLayer: 2, vocabSize: 45, ssmCfg: { dState: 16 } };
const DTYPES = ['f32', 'bf16', 'f16', 'int8'] as const;
const ids = tensor(randomIds(20, 45, 1), [1, 20]);

async function logits(lm: MatMambaLMHeadModel, mrlLevel = 1): Promise<Float32Array> {
  return (await lm.forward(ids, { mrlLevel })).logits.toFloat32();
}
const code = (name: string): object => expect.objectContaining({ name: 'MatMambaError', code: name });

describe('state dicts', () => {
  test('come back bit for bit, in every dtype what that dtype holds', async () => {
    await using source = await MatMambaLMHeadModel.create({ ...CONFIG, tieEmbeddings: false, dIntermediate: 100 }, OPTIONS);
    const weights = perturbed(source.stateDict(), 2);
    for (const dtype of DTYPES) {
      await using lm = await MatMambaLMHeadModel.create(
        { ...CONFIG, tieEmbeddings: false, dIntermediate: 100 },
        { ...OPTIONS, dtype },
      );
      await lm.loadStateDict(weights);
      expect(lm.dtype).toBe(dtype);
      for (const [name, value] of Object.entries(lm.stateDict())) {
        const floats = weights[name]!.toFloat32();
        const isMatrix = /(_proj|embedding|lm_head|fc1|fc2)\.weight$/.test(name);
        expect(value.shape, name).toEqual(weights[name]!.shape);
        if (!isMatrix || dtype === 'f32') expect([value.dtype, value.array], name).toEqual(['f32', floats]);
        else if (dtype === 'bf16')
          expect([value.dtype, value.array], name).toEqual(['bf16', Uint16Array.from(floats, floatToBf16)]);
        else if (dtype === 'f16') expect([value.dtype, value.array], name).toEqual(['f16', Uint16Array.from(floats, floatToF16)]);
        else expectInt8(value, floats, name);
      }
    }
  });

  test('loading what stateDict gave changes nothing, and the model may read its own', async () => {
    for (const dtype of DTYPES) {
      await using lm = await MatMambaLMHeadModel.create(CONFIG, { ...OPTIONS, dtype });
      const before = await logits(lm);
      await lm.loadStateDict(lm.stateDict());
      const after = await logits(lm);
      if (dtype !== 'int8') expect(after).toEqual(before);
    }
  });

  test('runs asked for before see the old weights, runs after the new, with no wait between', async () => {
    await using lm = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
    await using other = await MatMambaLMHeadModel.create(CONFIG, { ...OPTIONS, seed: 5 });
    const [old, fresh] = [await logits(lm), await logits(other)];
    const otherWeights = other.stateDict();
    const calls = [
      logits(lm),
      logits(lm, 4),
      lm.loadStateDict(otherWeights),
      logits(lm),
      logits(lm, 2),
      lm.loadStateDict(perturbed(otherWeights, 1)),
    ] as const;
    expect(await calls[0]).toEqual(old);
    expect(await calls[3]).toEqual(fresh);
    await Promise.all(calls);
    expect(await calls[4]).toEqual(await logits(other, 2));
    expect(await logits(lm)).not.toEqual(fresh);
  });

  test('tied names: one is enough, both are given', async () => {
    await using lm = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
    const weights = perturbed(lm.stateDict(), 3);
    const both = Object.keys(weights).filter((name) => /embedding|lm_head/.test(name));
    expect(both.sort()).toEqual(['backbone.embedding.weight', 'lm_head.weight']);
    await lm.loadStateDict(weights);
    const expected = await logits(lm);
    for (const name of both) {
      const { [name]: left, ...rest } = weights;
      expect(left).toBeDefined();
      await lm.loadStateDict(perturbed(weights, 9));
      await lm.loadStateDict(rest);
      expect(await logits(lm), `without ${name}`).toEqual(expected);
    }
  });

  test('what does not fit is refused and changes nothing', async () => {
    await using lm = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
    const before = await logits(lm);
    const weights = perturbed(lm.stateDict(), 4);
    const name = 'backbone.layers.1.mixer.out_proj.weight';
    const bad = (value: number): Tensor => {
      const floats = weights[name]!.toFloat32().slice();
      floats[77] = value;
      return tensor(floats, weights[name]!.shape);
    };
    const { [name]: missing, ...rest } = weights;
    const attempts: [Record<string, Tensor>, string, RegExp][] = [
      [{ ...weights, [name]: bad(NaN) }, 'WEIGHTS', /layers\.1\.mixer\.out_proj\.weight holds NaN at element 77/],
      [{ ...weights, [name]: bad(-Infinity) }, 'WEIGHTS', /-Infinity at element 77/],
      [rest, 'WEIGHTS', /lacks backbone\.layers\.1\.mixer\.out_proj\.weight/],
      [{ ...rest, 'backbone.layers.1.mixer.outproj.weight': missing! }, 'WEIGHTS', /meant to be/],
      [{ ...weights, extra: missing! }, 'WEIGHTS', /extra/],
      [{ ...weights, [name]: tensor(missing!.toFloat32(), [128, 64]) }, 'SHAPE', /expected \(64, 128\), got \(128, 64\)/],
      [{}, 'WEIGHTS', /lacks/],
    ];
    for (const [given, expected, message] of attempts) {
      await expect(lm.loadStateDict(given), String(message)).rejects.toMatchObject(code(expected));
      await expect(lm.loadStateDict(given)).rejects.toThrow(message);
    }
    expect(await logits(lm)).toEqual(before);
  });
});

function expectInt8(value: Tensor, floats: Float32Array, name: string): void {
  const columns = value.shape[1]!;
  const mine = value.toFloat32();
  for (let row = 0; row * columns < floats.length; row++) {
    const source = floats.subarray(row * columns, (row + 1) * columns);
    const largest = Math.max(...source.map(Math.abs));
    for (const [i, x] of source.entries()) {
      if (Math.abs(mine[row * columns + i]! - x) > (largest / 127) * 0.5001)
        throw new Error(`${name} (${row}, ${i}): ${x} became ${mine[row * columns + i]}`);
    }
  }
}

describe('savePretrained and fromPretrained', () => {
  for (const dtype of DTYPES) {
    for (const format of ['safetensors', 'pytorch'] as const) {
      test(`${dtype}, ${format}`, async () => {
        await withFolder(async (folder) => {
          for (const tieEmbeddings of [true, false]) {
            await using lm = await MatMambaLMHeadModel.create(
              { ...CONFIG, tieEmbeddings, ssmCfg: { dState: 16, dtLimit: [0.01, Infinity] } },
              { ...OPTIONS, dtype },
            );
            const target = `${folder}/${tieEmbeddings}`;
            await lm.savePretrained(target, { format });
            await using again = await MatMambaLMHeadModel.fromPretrained(target, { ...OPTIONS, dtype });
            expect(again.config).toEqual(lm.config);
            const exact = dtype !== 'int8' || format === 'safetensors';
            for (const [name, value] of Object.entries(lm.stateDict())) {
              const copy = again.stateDict()[name]!;
              if (exact) expect([copy.dtype, copy.array], name).toEqual([value.dtype, value.array]);
            }
            if (exact) expect(await logits(again, 2)).toEqual(await logits(lm, 2));
            // And into another dtype.
            await using wide = await MatMambaLMHeadModel.fromPretrained(target, OPTIONS);
            for (const [name, value] of Object.entries(lm.stateDict()))
              expect(wide.stateDict()[name]!.toFloat32(), name).toEqual(value.toFloat32());
          }
        });
      });
    }
  }

  test('block and vision model', async () => {
    await withFolder(async (folder) => {
      await using block = await MatMamba2.create(
        { dModel: 96, dState: 16, bias: true, DHasHdim: true, dConv: 3, normBeforeGate: true },
        { ...OPTIONS, seed: 8 },
      );
      await block.savePretrained(`${folder}/block`);
      await using sameBlock = await MatMamba2.fromPretrained(`${folder}/block`, OPTIONS);
      const x = tensor(randomFloats(7 * 96, 1), [1, 7, 96]);
      expect((await sameBlock.forward(x, { mrlLevel: 8 })).toFloat32()).toEqual(
        (await block.forward(x, { mrlLevel: 8 })).toFloat32(),
      );
      const config = {
        dModel: 32,
        nLayer: 2,
        nClasses: 3,
        patchSize: 8,
        imageSize: 16,
        dIntermediate: 64,
        pool: 'avg' as const,
        ssmCfg: { dState: 8 },
      };
      await using vision = await MatMamba2Vision.create(config, { ...OPTIONS, seed: 8 });
      await vision.savePretrained(`${folder}/vision`, { format: 'pytorch' });
      await using sameVision = await MatMamba2Vision.fromPretrained(`${folder}/vision`, OPTIONS);
      expect(sameVision.config).toEqual(vision.config);
      const images = tensor(randomFloats(3 * 256, 2), [1, 3, 16, 16]);
      expect((await sameVision.forward(images)).toFloat32()).toEqual((await vision.forward(images)).toFloat32());
    });
  });

  test('saving while the model is disposed never leaves a file of freed memory', async () => {
    await withFolder(async (folder) => {
      const lm = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
      const saving = lm.savePretrained(folder);
      const disposal = lm.dispose();
      const outcome = await saving.then(
        () => 'saved',
        (error: unknown) => (error as { code: string }).code,
      );
      await disposal;
      expect(['saved', 'DISPOSED']).toContain(outcome);
      if (outcome === 'DISPOSED') return;
      await using whole = await MatMambaLMHeadModel.fromPretrained(folder, OPTIONS);
      expect(whole.parameterCount).toBe(lm.parameterCount);
    });
  });
});

/** A saved model whose tensors and config are changed before they are written. */
async function savedWith(
  folder: string,
  change: (tensors: Record<string, Tensor>) => Record<string, Tensor>,
  json: (config: Record<string, unknown>) => Record<string, unknown> = (config) => config,
): Promise<void> {
  await using lm = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
  await lm.savePretrained(folder);
  const tensors = Object.entries(change(lm.stateDict()));
  await saveTensors(
    folder,
    'safetensors',
    tensors.map(([name, { dtype, shape, bytes }]) => ({ name, dtype, shape, chunks: () => bytes })),
    { metadata: {} },
  );
  const config = JSON.parse((await readFile(`${folder}/config.json`, 'utf8')).replaceAll('Infinity', '1e999')) as Record<
    string,
    unknown
  >;
  await writeFile(`${folder}/config.json`, JSON.stringify(json(config)));
}
const same = (tensors: Record<string, Tensor>): Record<string, Tensor> => tensors;
const load = (folder: string, onWarning?: (message: string) => void): Promise<MatMambaLMHeadModel> =>
  MatMambaLMHeadModel.fromPretrained(folder, { ...OPTIONS, onWarning });

describe('files from outside', () => {
  test('weights that are not finite are named', async () => {
    await withFolder(async (folder) => {
      await savedWith(folder, (tensors) => {
        const name = 'backbone.layers.0.mixer.A_log';
        return {
          ...tensors,
          [name]: tensor(
            tensors[name]!.toFloat32().map((x, i) => (i === 63 ? NaN : x)),
            [64],
          ),
        };
      });
      await expect(load(folder)).rejects.toThrow(/layers\.0\.mixer\.A_log holds NaN at element 63/);
    });
  });

  test('either of two tied names may be missing, more rows than the vocabulary are cut', async () => {
    await withFolder(async (folder) => {
      await using plain = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
      const expected = await logits(plain);
      for (const name of ['backbone.embedding.weight', 'lm_head.weight']) {
        await savedWith(folder, (tensors) => Object.fromEntries(Object.entries(tensors).filter(([one]) => one !== name)));
        await using lm = await load(folder);
        expect(await logits(lm), `without ${name}`).toEqual(expected);
      }
      const longer = (value: Tensor): Tensor =>
        tensor(Float32Array.of(...value.toFloat32(), ...new Float32Array(16 * 64)), [64, 64]);
      await savedWith(folder, (tensors) => ({
        ...tensors,
        'backbone.embedding.weight': longer(tensors['backbone.embedding.weight']!),
        'lm_head.weight': longer(tensors['lm_head.weight']!),
      }));
      const warnings: string[] = [];
      await using cut = await load(folder, (message) => warnings.push(message));
      expect(await logits(cut)).toEqual(expected);
      expect(warnings.join()).toMatch(/64 rows, of which the first 48/);
    });
  });

  test('tensors too many, too few or of another shape', async () => {
    await withFolder(async (folder) => {
      await savedWith(folder, (tensors) => ({ ...tensors, 'backbone.layers.2.norm.weight': tensor(new Float32Array(64)) }));
      await expect(load(folder)).rejects.toMatchObject(code('WEIGHTS'));
      await savedWith(folder, (tensors) =>
        Object.fromEntries(Object.entries(tensors).filter(([name]) => name !== 'backbone.norm_f.weight')),
      );
      await expect(load(folder)).rejects.toThrow(/lacks backbone\.norm_f\.weight/);
      await savedWith(folder, same, (config) => ({ ...config, d_model: 128 }));
      await expect(load(folder)).rejects.toMatchObject(code('SHAPE'));
      await savedWith(folder, (tensors) => ({
        ...tensors,
        'backbone.layers.0.mixer.in_proj.weight': new Tensor(new Int8Array(352 * 64), [352, 64], 'i8'),
      }));
      await expect(load(folder)).rejects.toThrow(/is int8 and needs .*_scale/);
    });
  });

  test('configs: misspellings are refused, strangers are warned of, unsupported ones are refused', async () => {
    await withFolder(async (folder) => {
      const warnings: string[] = [];
      const attempt = async (json: (config: Record<string, unknown>) => Record<string, unknown>): Promise<unknown> => {
        await savedWith(folder, same, json);
        const lm = await load(folder, (message) => warnings.push(message));
        await lm.dispose();
        return undefined;
      };
      await expect(attempt(({ n_layer, ...rest }) => ({ ...rest, n_layers: n_layer }))).rejects.toThrow(/did you mean 'n_layer'/);
      await expect(attempt((config) => ({ ...config, ssm_cfg: { d_sate: 16 } }))).rejects.toThrow(
        /ssm_cfg.*did you mean 'd_state'/s,
      );
      await attempt((config) => ({
        ...config,
        trained_by: 'someone',
        architectures: ['x'],
        ssm_cfg: { d_state: 16, layer: 'Mamba2' },
      }));
      expect(warnings.join()).toMatch(/trained_by.*architectures/);
      for (const wrong of [
        { ssm_cfg: { d_state: 16, ngroups: 2 } },
        { ssm_cfg: { d_state: 16, expand: 4 } },
        { attn_layer_idx: [0] },
        { d_model: 100 },
        { n_layer: 'two' },
        { ssm_cfg: 3 },
      ]) {
        await expect(
          attempt((config) => ({ ...config, ...wrong })),
          JSON.stringify(wrong),
        ).rejects.toMatchObject(code('CONFIG'));
      }
      await writeFile(`${folder}/config.json`, '{"d_model": ');
      await expect(load(folder)).rejects.toMatchObject({ code: expect.stringMatching(/FORMAT|CONFIG/) });
      await writeFile(`${folder}/config.json`, '[1]');
      await expect(load(folder)).rejects.toMatchObject(code('FORMAT'));
      await expect(MatMambaLMHeadModel.fromPretrained(folder, { ...OPTIONS, revison: 'x' } as object)).rejects.toThrow(
        /did you mean 'revision'/,
      );
    });
  });

  test('loading stops when its signal fires', async () => {
    await withFolder(async (folder) => {
      await savedWith(folder, same);
      const controller = new AbortController();
      const call = MatMambaLMHeadModel.fromPretrained(folder, {
        ...OPTIONS,
        signal: controller.signal,
        progressCallback: () => controller.abort(),
      });
      await expect(call).rejects.toMatchObject(code('ABORTED'));
    });
  });

  test('a model lies in memory once while it loads', async () => {
    await withFolder(async (folder) => {
      const { config, parameters } = declareLanguageModel({ dModel: 1024, nLayer: 4, vocabSize: 24_000, ssmCfg: { dState: 64 } });
      const piece = new Uint8Array(tensor(randomFloats(2 ** 18, 1, 0.02)).bytes);
      const tensors = [...parameters.declared.values()].map(({ name, shape }) => ({
        name,
        dtype: 'f32' as const,
        shape,
        *chunks() {
          for (let left = 4 * sizeOf(shape); left > 0; left -= piece.length)
            yield piece.subarray(0, Math.min(left, piece.length));
        },
      }));
      await saveTensors(folder, 'safetensors', tensors, { metadata: {} });
      await using opener = await MatMamba2.create({ dModel: 32, dState: 8 }, { threads: 1 });
      globalThis.gc?.();
      const before = process.memoryUsage().rss;
      let peak = before;
      await using lm = await MatMambaLMHeadModel.fromPretrained(folder, {
        threads: 1,
        config,
        progressCallback: () => (peak = Math.max(peak, process.memoryUsage().rss)),
      });
      peak = Math.max(peak, process.memoryUsage().rss);
      const { weightBytes } = lm.memory();
      expect(weightBytes).toBeGreaterThan(180 * 2 ** 20);
      expect(opener.memory().weightBytes).toBeGreaterThan(0);
      expect((peak - before - weightBytes) / 2 ** 20, 'MiB beyond the weights').toBeLessThan(64);
    });
  });
});
