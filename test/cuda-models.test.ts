/** Whole models on an emulated GPU against the original's outputs and training steps: the backend's programs, not single ops. */

import { describe, test, vi } from 'vitest';
import { CUDA_TOLERANCES } from './support/close.ts';
import { checkBlock, checkLanguageModel, checkVision } from './support/golden-checks.ts';
import { TRAINING_TOLERANCES, checkLanguageTraining, checkVisionTraining } from './support/training-checks.ts';

vi.mock(import('../src/backends/cuda/gpu-driver.ts'), async () => {
  const { openEmulator } = await import('./support/cuda-emulator/emulator.ts');
  return { GpuDriver: { open: openEmulator } } as never;
});

const GOLDEN = new URL('golden', import.meta.url).pathname;

describe('cuda, emulated', () => {
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
});
