/**
 * Every case of every op's CUDA kernels against its float64 reference, on an emulated device: the same kernels, run on
 * the CPU. `npm run test:gpu` runs them on a GPU.
 */

import { afterAll, describe, expect, test } from 'vitest';
import { MODEL_DTYPES, type ModelDType } from '../src/backends/backend.ts';
import { CudaBackend } from '../src/backends/cuda/cuda-backend.ts';
import { CONFORMANCE } from '../src/ops/all-cases.ts';
import { OPS, type OpName } from '../src/ops/index.ts';
import { openEmulator } from './support/cuda-emulator/emulator.ts';
import { runCase } from './support/run-case.ts';

/** 16-bit operands and activations. */
const HALF_TOLERANCE = 2e-2;
const TOLERANCES: Readonly<Record<ModelDType, number>> = {
  f32: 2e-5,
  tf32: 1e-3,
  bf16: HALF_TOLERANCE,
  f16: HALF_TOLERANCE,
  int8: HALF_TOLERANCE,
  'bf16-mixed': HALF_TOLERANCE,
};

const backend = new CudaBackend(await openEmulator());
afterAll(() => backend.dispose());

describe('cuda, emulated', () => {
  for (const opName of Object.keys(OPS) as OpName[]) {
    const hasMatrix = Object.values(OPS[opName].inputAxes).some((axes) => axes.startsWith('matrix'));
    for (const dtype of hasMatrix ? MODEL_DTYPES : (['f32', 'bf16', 'f16'] as const)) {
      test(`${opName} ${dtype}`, async () => {
        for (const testCase of CONFORMANCE[opName].cases) {
          const { errors, finite } = await runCase(backend, opName, testCase, dtype);
          const tolerance = Math.max(TOLERANCES[dtype], testCase.tolerance);
          expect(finite, `${testCase.name}: a result is not finite`).toBe(true);
          for (const [name, { relative, largest, at, got, expected }] of Object.entries(errors)) {
            const place = `${testCase.name}: ${name} differs by ${largest} at ${at} (got ${got}, expected ${expected})`;
            expect(relative, place).toBeLessThanOrEqual(tolerance);
          }
        }
      });
    }
  }
});
