/** Gradients and four joint AdamW steps of the language model, gradients of the vision model, against the original. */

import { basename } from 'node:path';
import { describe, test } from 'vitest';
import { goldenLanguageModels } from './support/golden-checks.ts';
import { GOLDEN_FOLDERS } from './support/golden.ts';
import { TRAINING_TOLERANCES, checkLanguageTraining, checkVisionTraining } from './support/training-checks.ts';

const SETTING = { options: {}, tolerances: TRAINING_TOLERANCES.f32! };

for (const folder of GOLDEN_FOLDERS) {
  describe(`training goldens in ${basename(folder)}`, () => {
    for (const name of goldenLanguageModels(folder)) {
      for (const recompute of [false, true]) {
        test(`${name}${recompute ? ', activations recomputed' : ''}`, () =>
          checkLanguageTraining(`${folder}/${name}`, recompute, SETTING));
      }
    }
    test('vision', () => checkVisionTraining(`${folder}/vision`, SETTING));
  });
}
