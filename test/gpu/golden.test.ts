/** Blocks, language models and vision models against what the original implementation computed, in every dtype. */

import { basename } from 'node:path';
import { test } from 'node:test';
import type { ModelDType } from '../../src/backends/backend.ts';
import { checkBlockGradients } from '../support/block-gradients.ts';
import { CUDA_TOLERANCES, type Measured } from '../support/close.ts';
import {
  type GoldenSetting,
  checkBlock,
  checkLanguageModel,
  checkVision,
  goldenBlocks,
  goldenLanguageModels,
} from '../support/golden-checks.ts';
import { GOLDEN_FOLDERS } from '../support/golden.ts';
import { available, device, measuredTest, optionsOf } from './harness.ts';

const VALUES: readonly ModelDType[] = ['f32', 'tf32', 'bf16', 'f16', 'bf16-mixed'];
const GRADIENTS: readonly ModelDType[] = ['f32', 'tf32', 'bf16-mixed'];

/** Products read float32 operands as TF32: measured 1.26e-3 on an H200 at level 8, where the others stay below 1e-3. */
const TF32_VISION = 1.5e-3;

const settingOf = (dtype: ModelDType, measured: Measured): GoldenSetting => ({
  options: optionsOf(dtype),
  tolerance: CUDA_TOLERANCES[dtype].output,
  sameTokens: dtype === 'f32',
  measured,
});

if (GOLDEN_FOLDERS.length === 0) void test('there are goldens', () => Promise.reject(new Error('test/golden is missing')));

for (const folder of GOLDEN_FOLDERS) {
  const place = basename(folder);
  for (const dtype of available(VALUES)) {
    for (const file of goldenBlocks(folder))
      measuredTest(`${place}/${file}`, 'golden blocks', dtype, (measured) =>
        checkBlock(`${folder}/${file}`, settingOf(dtype, measured)),
      );
    for (const name of goldenLanguageModels(folder))
      measuredTest(`${place}/${name}`, 'golden language models', dtype, (measured) =>
        checkLanguageModel(`${folder}/${name}`, settingOf(dtype, measured)),
      );
    measuredTest(`${place}/vision`, 'golden vision', dtype, (measured) =>
      checkVision(`${folder}/vision`, { ...settingOf(dtype, measured), ...(dtype === 'tf32' ? { tolerance: TF32_VISION } : {}) }),
    );
  }
  for (const dtype of available(GRADIENTS)) {
    for (const file of goldenBlocks(folder))
      measuredTest(`gradients of ${place}/${file}`, 'golden block gradients', dtype, async (measured) => {
        await checkBlockGradients(device, `${folder}/${file}`, dtype, CUDA_TOLERANCES[dtype].gradient, measured);
      });
  }
}
