/** All conformance cases of one op in one dtype, for every backend and test runner. */

import { type Backend, CUDA_DTYPES, type ModelDType, WEIGHT_DTYPES } from '../../src/backends/backend.ts';
import { CONFORMANCE } from '../../src/ops/all-cases.ts';
import { OPS, type OpName } from '../../src/ops/index.ts';
import type { OpCase } from '../../src/ops/cases.ts';
import { CUDA_TOLERANCES, type Measured, WEBGPU_TOLERANCE } from './close.ts';
import { runCase } from './run-case.ts';

export const OP_NAMES = Object.keys(OPS) as OpName[];

/** Whether an op reads a matrix, whose storage follows the dtype. */
export function hasMatrix(opName: OpName): boolean {
  return Object.values(OPS[opName].inputAxes).some((axes) => axes.startsWith('matrix'));
}

/** Dtypes in which an op's CUDA kernels differ; products of activations make `tf32` one of them. */
export function cudaDTypesOf(opName: OpName): readonly ModelDType[] {
  return hasMatrix(opName) ? CUDA_DTYPES : ['f32', 'tf32', 'bf16', 'f16'];
}

/** All cases of an op on a CUDA backend. @throws see `checkCases` */
export function checkCudaCases(backend: Backend, opName: OpName, dtype: ModelDType, measured?: Measured): Promise<void> {
  return checkCases(backend, opName, dtype, ({ tolerance }) => Math.max(CUDA_TOLERANCES[dtype].output, tolerance), measured);
}

/** Dtypes in which an op's WebGPU kernels differ: activations are always float32. */
export function webGpuDTypesOf(opName: OpName): readonly ModelDType[] {
  return hasMatrix(opName) ? WEIGHT_DTYPES : ['f32'];
}

/** All cases of an op on a WebGPU backend; the reference sees the weights as they were stored. */
export function checkWebGpuCases(backend: Backend, opName: OpName, dtype: ModelDType, measured?: Measured): Promise<void> {
  return checkCases(backend, opName, dtype, ({ tolerance }) => Math.max(WEBGPU_TOLERANCE, tolerance), measured);
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
