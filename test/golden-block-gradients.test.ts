/** Gradients of the standalone block against what the original implementation printed: of the input and of every weight. */

import { basename } from 'node:path';
import { afterAll, describe, test } from 'vitest';
import { CpuBackend } from '../src/backends/cpu/cpu-backend.ts';
import { checkBlockGradients } from './support/block-gradients.ts';
import { goldenBlocks } from './support/golden-checks.ts';
import { GOLDEN_FOLDERS } from './support/golden.ts';

/** Section 5 of the design: gradients. */
const TOLERANCE = 1e-4;

const backends = await Promise.all([CpuBackend.open({ threads: 2, blas: 'off' }), CpuBackend.open({ threads: 2, blas: 'auto' })]);
afterAll(() => Promise.all(backends.map((backend) => backend.dispose())));

for (const backend of backends) {
  const { BLAS: blas } = backend.capabilities().facts;
  for (const folder of GOLDEN_FOLDERS) {
    describe(`block gradients of ${basename(folder)}, BLAS ${blas}`, () => {
      for (const file of goldenBlocks(folder)) {
        test(file, async (context) => {
          const compared = await checkBlockGradients(backend, `${folder}/${file}`, 'f32', TOLERANCE);
          if (!compared) context.skip('holds no gradients');
        });
      }
    });
  }
}
