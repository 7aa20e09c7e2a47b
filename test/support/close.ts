/** Comparisons that any test runner can use: they throw, and tell what they measured before. */

import type { ModelDType } from '../../src/backends/backend.ts';
import { relativeError } from './run-case.ts';

/** Told of every relative error, so that a run can print the largest. */
export type Measured = (error: number) => void;

/** Relative L2 error of outputs and of gradients in each dtype on a GPU: section 5 of the design, gradients somewhat wider. */
export const CUDA_TOLERANCES: Readonly<Record<ModelDType, { readonly output: number; readonly gradient: number }>> = {
  f32: { output: 2e-5, gradient: 1e-4 },
  tf32: { output: 1e-3, gradient: 2e-2 },
  bf16: { output: 2e-2, gradient: 5e-2 },
  'bf16-mixed': { output: 2e-2, gradient: 5e-2 },
  f16: { output: 2e-2, gradient: 5e-2 },
  int8: { output: 2e-2, gradient: 5e-2 },
  int4: { output: 2e-2, gradient: 5e-2 },
};

/** Relative L2 error of float32 kernels on WebGPU: section 5 of the design. */
export const WEBGPU_TOLERANCE = 2e-5;

/** @throws Error when the relative L2 error of `got` is not below the tolerance */
export function checkClose(
  got: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what: string,
  measured?: Measured,
): void {
  if (got.length !== expected.length) throw new Error(`${what}: ${expected.length} numbers expected, got ${got.length}`);
  const error = relativeError(got, expected);
  measured?.(error);
  if (!(error < tolerance)) throw new Error(`${what}: relative error ${error.toExponential(2)}, allowed ${tolerance}`);
}

/** @throws Error when two figures differ by more than the tolerance */
export function checkFigure(got: number, expected: number, tolerance: number, what: string, measured?: Measured): void {
  const error = Math.abs(got - expected);
  measured?.(error);
  if (!(error < tolerance)) throw new Error(`${what}: ${got}, expected ${expected}, allowed difference ${tolerance}`);
}

/** The same, as a part of `expected`. */
export function checkRatio(got: number, expected: number, tolerance: number, what: string, measured?: Measured): void {
  checkFigure(got / expected, 1, tolerance, `${what} (${got} over ${expected})`, measured);
}

/** @throws Error unless the bits are the same */
export function checkSame(got: ArrayBufferView, expected: ArrayBufferView, what: string): void {
  const bytes = (view: ArrayBufferView): Buffer => Buffer.from(view.buffer, view.byteOffset, view.byteLength);
  if (!bytes(got).equals(bytes(expected))) throw new Error(`${what}: the bits differ`);
}

/** @throws Error when a condition that `what` names does not hold */
export function checkThat(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}
