/**
 * The chunk scan's cases on an emulated device of one multiprocessor: its kernels then divide heads among warps as they do
 * for large batches, several heads or all columns of a head to a warp.
 */

import { afterAll, test } from 'vitest';
import { checkCudaCases } from './support/check-cases.ts';
import { describeEmulated, emulatedBackend } from './support/emulated.ts';

const backend = await emulatedBackend({ multiprocessors: 1 });
afterAll(() => backend?.dispose());

describeEmulated('cuda, emulated, one multiprocessor', () => {
  for (const dtype of ['f32', 'bf16', 'f16'] as const) {
    test(`chunk_scan ${dtype}`, () => checkCudaCases(backend, 'chunk_scan', dtype));
  }
});
