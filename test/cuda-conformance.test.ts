/**
 * Every case of every op's CUDA kernels against its float64 reference, on an emulated device: the same kernels, run on
 * the CPU. `npm run test:gpu` runs them on a GPU.
 */

import { afterAll, describe, test } from 'vitest';
import { CudaBackend } from '../src/backends/cuda/cuda-backend.ts';
import { OP_NAMES, checkCudaCases, cudaDTypesOf, hasMatrix } from './support/check-cases.ts';
import { openEmulator } from './support/cuda-emulator/emulator.ts';

const backend = new CudaBackend(await openEmulator());
afterAll(() => backend.dispose());

describe('cuda, emulated', () => {
  for (const opName of OP_NAMES) {
    for (const dtype of cudaDTypesOf(opName)) {
      // Emulated products are float32 in both.
      if (dtype === 'tf32' && !hasMatrix(opName)) continue;
      test(`${opName} ${dtype}`, () => checkCudaCases(backend, opName, dtype));
    }
  }
});
