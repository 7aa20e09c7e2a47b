/**
 * Every case of every op, gradient ops included, against its float64 reference in every dtype; on WebGPU also with fewer of
 * the adapter's features, where these choose other kernels.
 */

import { after } from 'node:test';
import { openWebGpu, type WebGpuBackend } from '../../src/backends/webgpu/webgpu-backend.ts';
import { OP_NAMES, checkCudaCases, checkWebGpuCases, cudaDTypesOf, webGpuDTypesOf } from '../support/check-cases.ts';
import { FEATURE_OPS, fewerFeatures } from '../support/webgpu-device.ts';
import { DEVICE, available, device, measuredTest } from './harness.ts';

const [dtypesOf, check] = DEVICE === 'webgpu' ? [webGpuDTypesOf, checkWebGpuCases] : [cudaDTypesOf, checkCudaCases];
const unsupported = device.capabilities().unsupported;

for (const opName of OP_NAMES) {
  if (DEVICE === 'webgpu' && opName in unsupported) continue;
  for (const dtype of available(dtypesOf(opName)))
    measuredTest(opName, opName, dtype, (measured) => check(device, opName, dtype, { measured }));
}

if (DEVICE === 'webgpu') {
  for (const features of fewerFeatures((device as WebGpuBackend).device.features)) {
    const fewer = await openWebGpu({ features });
    after(() => fewer.dispose());
    for (const opName of FEATURE_OPS) {
      for (const dtype of available(webGpuDTypesOf(opName))) {
        const name = `${opName} with ${features.join(', ') || 'no features'}`;
        measuredTest(name, name, dtype, (measured) => checkWebGpuCases(fewer, opName, dtype, { measured }));
      }
    }
  }
}
