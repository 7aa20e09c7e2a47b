/** Every case of every op against its float64 reference, with each way to store weights. */

import { afterAll, describe, expect, test } from 'vitest';
import { WEIGHT_DTYPES, type WeightStorage } from '../src/backends/backend.ts';
import { CpuBackend } from '../src/backends/cpu/cpu-backend.ts';
import { CONFORMANCE } from '../src/ops/all-cases.ts';
import { OPS, type OpName } from '../src/ops/index.ts';
import { runCase } from './support/run-case.ts';

/** One-row products quantise the activations of int8 layers to 12 bits. */
const INT8_TOLERANCE = 2e-3;

const backends = await Promise.all([
  CpuBackend.open({ threads: 1, blas: 'off' }),
  CpuBackend.open({ threads: 2, blas: 'off' }),
  CpuBackend.open({ threads: 2, blas: 'auto' }),
]);
afterAll(() => Promise.all(backends.map((backend) => backend.dispose())));

for (const backend of backends) {
  const {
    summary,
    facts: { BLAS, SIMD },
  } = backend.capabilities();
  describe(`cpu, ${summary}, ${SIMD}, BLAS ${BLAS}`, () => {
    for (const opName of Object.keys(OPS) as OpName[]) {
      const storages: readonly WeightStorage[] = Object.values(OPS[opName].inputAxes).some((axes) => axes.startsWith('matrix'))
        ? WEIGHT_DTYPES
        : ['f32'];
      for (const storage of storages) {
        test(`${opName} ${storage}`, async () => {
          for (const testCase of CONFORMANCE[opName].cases) {
            const { errors, finite } = await runCase(backend, opName, testCase, storage);
            const tolerance = storage === 'int8' ? Math.max(INT8_TOLERANCE, testCase.tolerance) : testCase.tolerance;
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
}
