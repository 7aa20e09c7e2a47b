/**
 * The chunk scan's cases on an emulated device of one multiprocessor: its kernels then divide heads among warps as they do
 * for large batches, several heads or all columns of a head to a warp.
 */

import { afterAll, describe, test } from 'vitest';
import { CudaBackend } from '../src/backends/cuda/cuda-backend.ts';
import { checkCudaCases } from './support/check-cases.ts';
import { openEmulator } from './support/cuda-emulator/emulator.ts';

const backend = new CudaBackend(await openEmulator({ multiprocessors: 1 }));
afterAll(() => backend.dispose());

describe('cuda, emulated, one multiprocessor', () => {
  for (const dtype of ['f32', 'bf16', 'f16'] as const) {
    test(`chunk_scan ${dtype}`, () => checkCudaCases(backend, 'chunk_scan', dtype));
  }
});
