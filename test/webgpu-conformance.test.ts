/**
 * Every case of every op's WebGPU kernels against its float64 reference, on whatever adapter there is: a software one is
 * enough (VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json with Debian's chromium). A software adapter is slow:
 * there matrices are stored in float32; two ops run their smaller cases in int8 too, and again without subgroups.
 * `MATMAMBA_ALL_DTYPES=1` asks for every case of every dtype.
 */

import { afterAll, describe, test } from 'vitest';
import { checkWebGpuCases, OP_NAMES, webGpuDTypesOf } from './support/check-cases.ts';
import { FEATURE_OPS, fewerFeatures, openTestWebGpu } from './support/webgpu-device.ts';

/** Shaders compile slowly on a busy machine. */
const LIMIT_MS = 300_000;
/** The ops whose kernels read a matrix in ways of their own. */
const READ_IN_INT8 = new Set<string>(['linear', 'embedding']);
/** So many of an op's cases, the smallest first, beyond those in float32 with every feature. */
const most = process.env['MATMAMBA_ALL_DTYPES'] === '1' ? Infinity : 12;

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
      if (most === Infinity || dtype === 'f32' || (dtype === 'int8' && READ_IN_INT8.has(opName))) {
        test(`${opName} ${dtype}`, () => checkWebGpuCases(backend!, opName, dtype, dtype === 'f32' ? {} : { most }), LIMIT_MS);
      }
    }
  }
  for (const features of fewerFeatures(backend?.device.features ?? [])) {
    for (const opName of FEATURE_OPS) {
      const name = `${opName} f32 with ${features.join(', ') || 'no features'}`;
      test(
        name,
        async () => {
          const { backend: other } = await openTestWebGpu({ features });
          try {
            await checkWebGpuCases(other!, opName, 'f32', { most });
          } finally {
            await other?.dispose();
          }
        },
        LIMIT_MS,
      );
    }
  }
});
