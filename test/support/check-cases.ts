/** All conformance cases of one op in one dtype, for every backend and test runner. */

import type { Backend, ModelDType } from '../../src/backends/backend.ts';
import { CONFORMANCE } from '../../src/ops/all-cases.ts';
import { OPS, type OpName } from '../../src/ops/index.ts';
import type { OpCase } from '../../src/ops/cases.ts';
import type { Measured } from './close.ts';
import { runCase } from './run-case.ts';

export const OP_NAMES = Object.keys(OPS) as OpName[];

/** Whether an op reads a matrix, whose storage follows the dtype. */
export function hasMatrix(opName: OpName): boolean {
  return Object.values(OPS[opName].inputAxes).some((axes) => axes.startsWith('matrix'));
}

/** @throws Error naming the case, the result and the place of the largest difference */
export async function checkCases(
  backend: Backend,
  opName: OpName,
  dtype: ModelDType,
  toleranceOf: (testCase: OpCase) => number,
  measured?: Measured,
): Promise<void> {
  for (const testCase of CONFORMANCE[opName].cases) {
    const { errors, finite } = await runCase(backend, opName, testCase, dtype);
    const tolerance = toleranceOf(testCase);
    if (!finite) throw new Error(`${testCase.name}: a result is not finite`);
    for (const [name, { relative, largest, at, got, expected }] of Object.entries(errors)) {
      measured?.(relative);
      if (relative <= tolerance) continue;
      const place = `differs most at ${at}, by ${largest} (got ${got}, expected ${expected})`;
      throw new Error(`${testCase.name}: ${name} has a relative error of ${relative}, allowed ${tolerance}; it ${place}`);
    }
  }
}
