/** Every case of every op, gradient ops included, against its float64 reference in every dtype. */

import type { ModelDType } from '../../src/backends/backend.ts';
import type { OpName } from '../../src/ops/index.ts';
import { OP_NAMES, checkCases, hasMatrix } from '../support/check-cases.ts';
import { TOLERANCES, available, device, measuredTest } from './harness.ts';

/** Ops that only training programs have; these run in dtypes whose weights are float32. */
const TRAINING = /_backward$|^(adamw|clip_factor|square_sum)$/;

function dtypesOf(opName: OpName): readonly ModelDType[] {
  if (TRAINING.test(opName)) return ['f32', 'tf32', 'bf16-mixed'];
  return hasMatrix(opName) ? ['f32', 'tf32', 'bf16', 'f16', 'int8', 'bf16-mixed'] : ['f32', 'tf32', 'bf16', 'f16'];
}

for (const opName of OP_NAMES) {
  for (const dtype of available(dtypesOf(opName))) {
    measuredTest(opName, opName, dtype, (measured) =>
      checkCases(device, opName, dtype, ({ tolerance }) => Math.max(TOLERANCES[dtype].output, tolerance), measured),
    );
  }
}
