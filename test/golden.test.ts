/** Block, language model and vision model against what the original implementation computed, at every width it printed. */

import { basename } from 'node:path';
import { describe, test } from 'vitest';
import {
  type GoldenSetting,
  checkBlock,
  checkLanguageModel,
  checkVision,
  goldenBlocks,
  goldenLanguageModels,
} from './support/golden-checks.ts';
import { GOLDEN_FOLDERS } from './support/golden.ts';

/** Section 5 of the design: float32 outputs. */
const SETTING: GoldenSetting = { options: {}, tolerance: 2e-5, sameTokens: true };

for (const folder of GOLDEN_FOLDERS) {
  describe(`goldens in ${basename(folder)}`, () => {
    for (const file of goldenBlocks(folder)) test(file, () => checkBlock(`${folder}/${file}`, SETTING));
    for (const name of goldenLanguageModels(folder))
      test(`${name}: logits, greedy tokens, step by step`, () => checkLanguageModel(`${folder}/${name}`, SETTING));
    test('vision: logits and features', () => checkVision(`${folder}/vision`, SETTING));
  });
}
