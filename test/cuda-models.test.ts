/** Whole models on an emulated GPU against the original's outputs and training steps: the backend's programs, not single ops. */

import { expect, test, vi } from 'vitest';
import { MatMambaLMHeadModel } from '../src/index.ts';
import { CUDA_TOLERANCES } from './support/close.ts';
import { describeEmulated } from './support/emulated.ts';
import { checkBlock, checkLanguageModel, checkVision } from './support/golden-checks.ts';
import { TRAINING_TOLERANCES, checkLanguageTraining, checkVisionTraining } from './support/training-checks.ts';

vi.mock(import('../src/backends/cuda/gpu-driver.ts'), async () => {
  const { openEmulator } = await import('./support/cuda-emulator/emulator.ts');
  return { GpuDriver: { open: openEmulator } } as never;
});

const GOLDEN = new URL('golden', import.meta.url).pathname;

describeEmulated('cuda, emulated', () => {
  for (const dtype of ['f32', 'bf16'] as const) {
    const setting = {
      options: { device: 'cuda', dtype },
      tolerance: CUDA_TOLERANCES[dtype].output,
      sameTokens: dtype === 'f32',
    } as const;
    test(`a block, ${dtype}`, () => checkBlock(`${GOLDEN}/block-p12.safetensors`, setting));
    test(`the language model, ${dtype}`, () => checkLanguageModel(`${GOLDEN}/lm`, setting));
    test(`the vision model, ${dtype}`, () => checkVision(`${GOLDEN}/vision`, setting));
  }
  for (const dtype of ['f32', 'bf16-mixed'] as const) {
    const setting = { options: { device: 'cuda', dtype }, tolerances: TRAINING_TOLERANCES[dtype]! } as const;
    test(`training steps of the language model, ${dtype}`, () => checkLanguageTraining(`${GOLDEN}/lm`, false, setting));
    test(`gradients of the vision model, ${dtype}`, () => checkVisionTraining(`${GOLDEN}/vision`, setting));
  }

  test('tokens drawn on the device are those drawn on the host', async () => {
    const path = `${GOLDEN}/lm`;
    const prompt = [3, 1, 4, 1, 5, 9, 2, 6];
    const settings = [
      { temperature: 0 },
      { temperature: 0.8, topK: 20, topP: 0.9, seed: 7 },
      { minP: 0.05, seed: 8, mrlLevel: 4 },
    ];
    const drawn = async (device: 'cpu' | 'cuda'): Promise<number[][]> => {
      await using lm = await MatMambaLMHeadModel.fromPretrained(path, { device });
      const all: number[][] = [];
      for (const setting of settings) {
        const ids: number[] = [];
        for await (const piece of lm.generate(prompt, { ...setting, maxNewTokens: 12 })) ids.push(...piece.ids);
        all.push(ids);
      }
      return all;
    };
    expect(await drawn('cuda')).toEqual(await drawn('cpu'));
  });
});
