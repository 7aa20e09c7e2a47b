/**
 * The cases of the chunk scan and the convolution on an emulated device of one multiprocessor: the scan then divides heads
 * among warps as it does for large batches, all columns of a head to a warp and sequence after sequence to a block; a
 * thread of the convolution has many steps.
 */

import { afterAll, test } from 'vitest';
import { checkCudaCases } from './support/check-cases.ts';
import { describeEmulated, emulatedBackend } from './support/emulated.ts';

const backend = await emulatedBackend({ multiprocessors: 1 });
afterAll(() => backend?.dispose());

describeEmulated('cuda, emulated, one multiprocessor', () => {
  for (const dtype of ['f32', 'bf16', 'f16'] as const) {
    test(`chunk_scan ${dtype}`, () => checkCudaCases(backend, 'chunk_scan', dtype));
    test(`conv1d_silu ${dtype}`, () => checkCudaCases(backend, 'conv1d_silu', dtype));
  }
});
