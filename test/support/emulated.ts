/**
 * The CUDA backend on an emulated device, where a C++ compiler is there to make it. Without one its tests are skipped
 * visibly; `MATMAMBA_REQUIRE=g++` turns the skip into a failure.
 */

import { describe, test } from 'vitest';
import { CudaBackend } from '../../src/backends/cuda/cuda-backend.ts';
import { compilerVersion } from './cuda-emulator/compile.ts';
import { type EmulatedDriver, type EmulatorOptions, openEmulator } from './cuda-emulator/emulator.ts';

const missing = await compilerVersion().then(
  () => undefined,
  (error: Error) => error.message,
);
if (missing !== undefined && (process.env['MATMAMBA_REQUIRE'] ?? '').split(',').includes('g++')) throw new Error(missing);

/** Only for tests inside `describeEmulated`, which do not run where there is none. */
export async function emulatedDriver(options: EmulatorOptions = {}): Promise<EmulatedDriver> {
  return missing === undefined ? openEmulator(options) : (undefined as never);
}

/** Likewise. */
export async function emulatedBackend(options: EmulatorOptions = {}): Promise<CudaBackend> {
  return missing === undefined ? new CudaBackend(await openEmulator(options)) : (undefined as never);
}

if (missing !== undefined) console.warn(`tests on the emulated GPU are skipped: ${missing}`);

export const describeEmulated = describe.skipIf(missing !== undefined);
export const testEmulated = test.skipIf(missing !== undefined);
