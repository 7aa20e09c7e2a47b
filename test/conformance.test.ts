/** Every case of every op against its float64 reference, with each way to store weights. */

import { afterAll, describe, test } from 'vitest';
import { COMMON_DTYPES, type WeightStorage } from '../src/backends/backend.ts';
import { CpuBackend } from '../src/backends/cpu/cpu-backend.ts';
import { OP_NAMES, checkCases, hasMatrix } from './support/check-cases.ts';

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
    unsupported,
  } = backend.capabilities();
  describe(`cpu, ${summary}, ${SIMD}, BLAS ${BLAS}`, () => {
    for (const opName of OP_NAMES) {
      const storages: readonly WeightStorage[] = hasMatrix(opName) ? COMMON_DTYPES : ['f32'];
      for (const storage of storages) {
        test.skipIf(opName in unsupported)(`${opName} ${storage}`, () =>
          checkCases(backend, opName, storage, ({ tolerance }) =>
            storage === 'int8' ? Math.max(INT8_TOLERANCE, tolerance) : tolerance,
          ),
        );
      }
    }
  });
}
