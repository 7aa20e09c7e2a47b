/** Weights in 4 bits: saving, loading and running them where they run, and what else is said. */

import { afterAll, describe, expect, test } from 'vitest';
import { randomIds } from '../../test/support/reference-model.ts';
import { relativeError } from '../../test/support/run-case.ts';
import { openTestWebGpu } from '../../test/support/webgpu-device.ts';
import { type TensorToSave, openCheckpoint, saveTensors } from '../checkpoint/index.ts';
import { withFolder } from '../checkpoint/testing.ts';
import { type MambaConfig, MatMambaLMHeadModel, type Tensor, tensor } from '../index.ts';
import { dequantise, packInt4, quantiseInt4 } from '../tensor/int4.ts';
import { SCALE_SUFFIX } from './weight-sources.ts';

const CPU = { threads: 1, blas: 'off' } as const;
const WEBGPU = { device: 'webgpu', dtype: 'int4' } as const;
const CONFIG: Partial<MambaConfig> = { dModel: 64, nLayer: 2, vocabSize: 45, dIntermediate: 128, ssmCfg: { dState: 16 } };
const MATRIX = /(_proj|embedding|lm_head|fc1|fc2)\.weight$/;
const FC2 = 'backbone.layers.1.mlp.fc2.weight';
const FORWARD = ['chunk_scan', 'conv1d_silu', 'gated_norm', 'gated_silu'];

const { backend, reason } = await openTestWebGpu();
afterAll(() => backend?.dispose());

function quantised(value: Tensor): Float32Array {
  const columns = value.shape[1]!;
  const { values, scales } = quantiseInt4(value.toFloat32(), columns);
  return dequantise(values, scales, columns, 32, Math.ceil(columns / 32));
}

/** A folder whose matrices are packed in groups of 64. */
async function saveInGroupsOf64(folder: string, lm: MatMambaLMHeadModel, groupsOf = 64): Promise<void> {
  const tensors = Object.entries(lm.stateDict()).flatMap(([name, value]): TensorToSave[] => {
    if (name === 'lm_head.weight') return [];
    const floats = value.toFloat32();
    const bytes = (array: ArrayBufferView): Uint8Array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    if (!MATRIX.test(name)) return [{ name, dtype: 'f32', shape: value.shape, chunks: () => bytes(floats) }];
    const [rows, columns] = value.shape as [number, number];
    const { values, scales } = quantiseInt4(floats, columns, groupsOf);
    const groups = scales.length / rows;
    return [
      { name, dtype: 'u8', shape: [rows, columns / 2], chunks: () => packInt4(values, columns) },
      { name: name + SCALE_SUFFIX, dtype: 'f32', shape: [rows, groups], chunks: () => bytes(scales) },
    ];
  });
  await saveTensors(folder, 'safetensors', tensors, {});
}

describe('weights in 4 bits', () => {
  test('the CPU refuses them and says what it has', async () => {
    const made = MatMambaLMHeadModel.create(CONFIG, { ...CPU, dtype: 'int4' });
    await expect(made).rejects.toMatchObject({ code: 'DEVICE', hint: expect.stringContaining('int8') as string });
  });

  test('files with groups of 64 load in any dtype; other groups and packings are refused', async () => {
    await withFolder(async (folder) => {
      await using lm = await MatMambaLMHeadModel.create(CONFIG, CPU);
      await lm.savePretrained(folder);
      await saveInGroupsOf64(folder, lm);
      await using wide = await MatMambaLMHeadModel.fromPretrained(folder, CPU);
      for (const [name, value] of Object.entries(lm.stateDict())) {
        const copy = wide.stateDict()[name]!.toFloat32();
        if (MATRIX.test(name)) expect(relativeError(copy, value.toFloat32()), name).toBeLessThan(0.12);
        else expect(copy, name).toEqual(value.toFloat32());
      }
      await using small = await MatMambaLMHeadModel.fromPretrained(folder, { ...CPU, dtype: 'int8' });
      expect(small.dtype).toBe('int8');
      await saveInGroupsOf64(folder, lm, 16);
      await expect(MatMambaLMHeadModel.fromPretrained(folder, CPU)).rejects.toThrow(/is int4 and needs .*groups of 32 or 64/);
      await expect(
        wide.loadStateDict({ ...lm.stateDict(), 'backbone.embedding.weight': tensor(new Uint8Array(45 * 32), [45, 32]) }),
      ).rejects.toMatchObject({ code: 'SHAPE' });
    });
  });

  describe.skipIf(!backend)(backend ? 'on WebGPU' : `on WebGPU: ${reason}`, () => {
    test('they are quantised in groups, saved packed, loaded as they were, and run', async () => {
      await withFolder(async (folder) => {
        const [wide, packed] = [`${folder}/f32`, `${folder}/int4`];
        await using lm = await MatMambaLMHeadModel.create(CONFIG, CPU);
        await lm.savePretrained(wide);
        await using small = await MatMambaLMHeadModel.fromPretrained(wide, WEBGPU);
        expect(small.memory().weightBytes).toBeLessThan(lm.memory().weightBytes / 2);
        for (const [name, value] of Object.entries(lm.stateDict())) {
          const expected = MATRIX.test(name) ? quantised(value) : value.toFloat32();
          expect(await small.stateDict()[name]!.data(), name).toEqual(expected);
        }
        await small.savePretrained(packed);
        await using checkpoint = await openCheckpoint(packed);
        expect(checkpoint.metadata['quantisation']).toMatch(/int4/);
        expect(checkpoint.entries.get(FC2)).toMatchObject({ dtype: 'u8', shape: [64, 64] });
        expect(checkpoint.entries.get(FC2 + SCALE_SUFFIX)).toMatchObject({ dtype: 'f32', shape: [64, 4] });

        await using again = await MatMambaLMHeadModel.fromPretrained(packed, WEBGPU);
        await using dequantised = await MatMambaLMHeadModel.fromPretrained(packed, CPU);
        for (const [name, value] of Object.entries(small.stateDict())) {
          const held = await value.data();
          expect(await again.stateDict()[name]!.data(), name).toEqual(held);
          expect(dequantised.stateDict()[name]!.array, name).toEqual(held);
        }
        if (Object.keys(again.capabilities().unsupported).some((op) => FORWARD.includes(op))) return;
        const ids = tensor(randomIds(20, 45, 1), [1, 20]);
        for (const mrlLevel of [1, 2]) {
          const [got, expected] = await Promise.all([again, dequantised].map((model) => model.forward(ids, { mrlLevel })));
          expect(relativeError(got!.logits.toFloat32(), expected!.logits.toFloat32())).toBeLessThan(2e-5);
        }
      });
    });
  });
});
