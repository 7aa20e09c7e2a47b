/**
 * Every case of every op's WebGPU kernels against its float64 reference, on whatever adapter there is: a software one is
 * enough (VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json with Debian's chromium). A software adapter is slow:
 * there matrices are stored in float32 and int8 alone, unless `MATMAMBA_ALL_DTYPES=1` asks for every dtype.
 */

import { afterAll, describe, test } from 'vitest';
import { checkWebGpuCases, OP_NAMES, webGpuDTypesOf } from './support/check-cases.ts';
import { openTestWebGpu } from './support/webgpu-device.ts';

/** Shaders compile slowly on a busy machine. */
const LIMIT_MS = 300_000;
const everyDType = process.env['MATMAMBA_ALL_DTYPES'] === '1';

const { backend, reason } = await openTestWebGpu();
afterAll(() => backend?.dispose());

describe.skipIf(!backend)(backend ? `webgpu, ${backend.capabilities().summary}` : `webgpu: ${reason}`, () => {
  const unsupported = backend?.capabilities().unsupported ?? {};
  for (const opName of OP_NAMES) {
    const why = unsupported[opName];
    if (why !== undefined) {
      test.skip(`${opName}: ${why}`);
      continue;
    }
    for (const dtype of webGpuDTypesOf(opName)) {
      if (everyDType || dtype === 'f32' || dtype === 'int8') {
        test(`${opName} ${dtype}`, () => checkWebGpuCases(backend!, opName, dtype), LIMIT_MS);
      }
    }
  }
});
