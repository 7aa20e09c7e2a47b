/** All conformance cases of one op in one dtype, for every backend and test runner. */

import { type Backend, CUDA_DTYPES, type ModelDType, WEIGHT_DTYPES } from '../../src/backends/backend.ts';
import { messageOf } from '../../src/errors.ts';
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

export interface CheckOptions {
  /** Told of the error of every case. */
  readonly measured?: Measured;
  /** So many cases, the smallest first; all unless given. */
  readonly most?: number;
}

/** All cases of an op on a CUDA backend. @throws see `throwFailures` */
export async function checkCudaCases(
  backend: Backend,
  opName: OpName,
  dtype: ModelDType,
  { measured }: Pick<CheckOptions, 'measured'> = {},
): Promise<void> {
  const toleranceOf = ({ tolerance }: OpCase): number => Math.max(CUDA_TOLERANCES[dtype].output, tolerance);
  await checkCases(backend, opName, dtype, toleranceOf, measured);
}

/** Dtypes in which an op's WebGPU kernels differ: activations are always float32. */
export function webGpuDTypesOf(opName: OpName): readonly ModelDType[] {
  return hasMatrix(opName) ? WEIGHT_DTYPES : ['f32'];
}

/** How one case went. */
export interface CaseReport {
  readonly name: string;
  /** Largest relative L2 error of its results; infinite where there are none. */
  readonly error: number;
  /** What is wrong: the result, and the place of the largest difference. */
  readonly failure?: string;
}

/** The smallest cases of an op on a WebGPU backend, all without `most`; the reference sees the weights as they were stored. */
export function reportWebGpuCases(backend: Backend, opName: OpName, dtype: ModelDType, most = Infinity): Promise<CaseReport[]> {
  const toleranceOf = ({ tolerance }: OpCase): number => Math.max(WEBGPU_TOLERANCE, tolerance);
  const sizes = new Map(CONFORMANCE[opName].cases.map((testCase) => [testCase, elementsOf(testCase)]));
  const smallestFirst = CONFORMANCE[opName].cases.toSorted((a, b) => sizes.get(a)! - sizes.get(b)!);
  return reportCases(backend, opName, dtype, toleranceOf, smallestFirst.slice(0, most));
}

/** Cases of an op on a WebGPU backend, as `reportWebGpuCases` takes them. @throws see `throwFailures` */
export async function checkWebGpuCases(
  backend: Backend,
  opName: OpName,
  dtype: ModelDType,
  { measured, most }: CheckOptions = {},
): Promise<void> {
  const reports = await reportWebGpuCases(backend, opName, dtype, most);
  for (const { error } of reports) measured?.(error);
  throwFailures(reports);
}

/** @throws Error naming the cases, the results and the places of the largest differences */
export async function checkCases(
  backend: Backend,
  opName: OpName,
  dtype: ModelDType,
  toleranceOf: (testCase: OpCase) => number,
  measured?: Measured,
): Promise<void> {
  const reports = await reportCases(backend, opName, dtype, toleranceOf, CONFORMANCE[opName].cases);
  for (const { error } of reports) measured?.(error);
  throwFailures(reports);
}

/** @throws Error naming every case that failed, and why */
export function throwFailures(reports: readonly CaseReport[]): void {
  const failures = reports.flatMap(({ name, failure }) => (failure === undefined ? [] : [`${name}: ${failure}`]));
  if (failures.length > 0) throw new Error(failures.join('\n'));
}

async function reportCases(
  backend: Backend,
  opName: OpName,
  dtype: ModelDType,
  toleranceOf: (testCase: OpCase) => number,
  cases: readonly OpCase[],
): Promise<CaseReport[]> {
  const reports: CaseReport[] = [];
  for (const testCase of cases) {
    const result = await runCase(backend, opName, testCase, dtype).catch(messageOf);
    if (typeof result === 'string') {
      reports.push({ name: testCase.name, error: Infinity, failure: result });
      continue;
    }
    const { errors, finite } = result;
    const tolerance = toleranceOf(testCase);
    let error = 0;
    let failure = finite ? undefined : 'a result is not finite';
    for (const [name, { relative, largest, at, got, expected }] of Object.entries(errors)) {
      error = Math.max(error, relative);
      if (relative <= tolerance) continue;
      const place = `differs most at ${at}, by ${largest} (got ${got}, expected ${expected})`;
      failure ??= `${name} has a relative error of ${relative}, allowed ${tolerance}; it ${place}`;
    }
    reports.push({ name: testCase.name, error, ...(failure === undefined ? {} : { failure }) });
  }
  return reports;
}

function elementsOf({ operands }: OpCase): number {
  return Object.values(operands).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
}
