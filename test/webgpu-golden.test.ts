/** The goldens of the original implementation on WebGPU: block, language model, vision model, at every width; gradients. */

import { basename } from 'node:path';
import { afterAll, describe, test } from 'vitest';
import { acquireBackend } from '../src/backends/open.ts';
import {
  type GoldenSetting,
  checkBlock,
  checkLanguageModel,
  checkVision,
  goldenBlocks,
  goldenLanguageModels,
} from './support/golden-checks.ts';
import { GOLDEN_FOLDERS } from './support/golden.ts';
import { TRAINING_TOLERANCES, checkVisionTraining } from './support/training-checks.ts';
import { openTestWebGpu } from './support/webgpu-device.ts';

/** Section 5 of the design: float32 outputs. */
const SETTING: GoldenSetting = { options: { device: 'webgpu' }, tolerance: 2e-5, sameTokens: true };
const TRAINING = { options: SETTING.options, tolerances: TRAINING_TOLERANCES.f32! };

const { backend, reason } = await openTestWebGpu();
await backend?.dispose();
// Models share the backend that is open, and with it the kernels that are compiled.
const held = backend ? await acquireBackend({ device: 'webgpu' }) : undefined;
afterAll(() => held?.release());

for (const folder of GOLDEN_FOLDERS) {
  describe.skipIf(!backend)(backend ? `goldens in ${basename(folder)} on WebGPU` : `goldens on WebGPU: ${reason}`, () => {
    for (const file of goldenBlocks(folder)) test(file, () => checkBlock(`${folder}/${file}`, SETTING));
    for (const name of goldenLanguageModels(folder))
      test(`${name}: logits, greedy tokens, step by step`, () => checkLanguageModel(`${folder}/${name}`, SETTING));
    test('vision: logits and features', () => checkVision(`${folder}/vision`, SETTING));
    // Half a minute for a language model on a software adapter: the GPU tests train those.
    test('vision: loss and gradients', () => checkVisionTraining(`${folder}/vision`, TRAINING));
  });
}
