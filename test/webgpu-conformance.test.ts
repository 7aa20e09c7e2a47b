/**
 * Every case of every op's WebGPU kernels against its float64 reference, on whatever adapter there is: a software one is
 * enough (VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json with Debian's chromium).
 */

import { afterAll, describe, test } from 'vitest';
import { checkWebGpuCases, OP_NAMES, webGpuDTypesOf } from './support/check-cases.ts';
import { openTestWebGpu } from './support/webgpu-device.ts';

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
    for (const dtype of webGpuDTypesOf(opName)) test(`${opName} ${dtype}`, () => checkWebGpuCases(backend!, opName, dtype));
  }
});
