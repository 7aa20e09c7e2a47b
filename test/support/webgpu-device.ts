/** The WebGPU backend for tests, or why there is none; `MATMAMBA_REQUIRE=webgpu` makes that a failure. */

import { existsSync } from 'node:fs';
import type { OpName } from '../../src/ops/index.ts';
import { messageOf } from '../../src/errors.ts';
import type { WebGpuFeature, WebGpuOptions } from '../../src/backends/webgpu/gpu.ts';
import { type WebGpuBackend, type WebGpuEvents, openWebGpu } from '../../src/backends/webgpu/webgpu-backend.ts';

/** Where Debian's chromium has its software adapter. */
export const SOFTWARE_ADAPTER = '/usr/lib/chromium/vk_swiftshader_icd.json';

export async function openTestWebGpu(
  options: WebGpuOptions = {},
  events: WebGpuEvents = {},
): Promise<{ backend?: WebGpuBackend; reason?: string }> {
  if (!process.env['VK_ICD_FILENAMES'] && existsSync(SOFTWARE_ADAPTER)) process.env['VK_ICD_FILENAMES'] = SOFTWARE_ADAPTER;
  try {
    return { backend: await openWebGpu(options, events) };
  } catch (error) {
    if (process.env['MATMAMBA_REQUIRE']?.split(',').includes('webgpu')) throw error;
    return { reason: messageOf(error) };
  }
}

/** The ops whose kernels are chosen by the adapter's features. */
export const FEATURE_OPS: readonly OpName[] = ['linear', 'linear_cross_entropy'];

/** Features to leave out, so that kernels run which adapters with all of them would not choose. */
const LEFT_OUT: readonly (readonly WebGpuFeature[])[] = [['subgroup-matrix'], ['subgroup-matrix', 'subgroups']];

/** The sets of features, fewer than all that the adapter has, in which its kernels differ. */
export function fewerFeatures(has: readonly WebGpuFeature[]): (readonly WebGpuFeature[])[] {
  let last = has;
  return LEFT_OUT.flatMap((out) => {
    const set = has.filter((name) => !out.includes(name));
    if (set.length === last.length) return [];
    last = set;
    return [set];
  });
}
