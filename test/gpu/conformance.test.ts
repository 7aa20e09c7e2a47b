/** Every case of every op, gradient ops included, against its float64 reference in every dtype. */

import { OP_NAMES, checkCudaCases, cudaDTypesOf } from '../support/check-cases.ts';
import { available, device, measuredTest } from './harness.ts';

for (const opName of OP_NAMES) {
  for (const dtype of available(cudaDTypesOf(opName)))
    measuredTest(opName, opName, dtype, (measured) => checkCudaCases(device, opName, dtype, measured));
}
