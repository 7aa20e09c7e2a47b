/** The WebGPU backend for tests, or why there is none; `MATMAMBA_REQUIRE=webgpu` makes that a failure. */

import { existsSync } from 'node:fs';
import { messageOf } from '../../src/errors.ts';
import type { WebGpuOptions } from '../../src/backends/webgpu/gpu.ts';
import { type WebGpuBackend, type WebGpuEvents, openWebGpu } from '../../src/backends/webgpu/webgpu-backend.ts';

/** Where Debian's chromium has its software adapter. */
const SOFTWARE_ADAPTER = '/usr/lib/chromium/vk_swiftshader_icd.json';

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
