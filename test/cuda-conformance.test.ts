/**
 * Every case of every op's CUDA kernels against its float64 reference, on an emulated device: the same kernels, run on
 * the CPU. `npm run test:gpu` runs them on a GPU. `MATMAMBA_ALL_DTYPES=1` adds f16.
 */

import { afterAll, test } from 'vitest';
import { OP_NAMES, checkCudaCases, cudaDTypesOf } from './support/check-cases.ts';
import { describeEmulated, emulatedBackend } from './support/emulated.ts';

/** The first run compiles every kernel. */
const LIMIT_MS = 300_000;
const everyDType = process.env['MATMAMBA_ALL_DTYPES'] === '1';

const backend = await emulatedBackend();
afterAll(() => backend?.dispose());

describeEmulated('cuda, emulated', () => {
  for (const opName of OP_NAMES) {
    for (const dtype of cudaDTypesOf(opName)) {
      // Emulated products are float32 in both, and f16 differs from bf16 by one type name.
      if (dtype === 'tf32' || (dtype === 'f16' && !everyDType)) continue;
      test(`${opName} ${dtype}`, () => checkCudaCases(backend, opName, dtype), LIMIT_MS);
    }
  }
});
