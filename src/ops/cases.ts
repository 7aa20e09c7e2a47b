/**
 * The one list of cases that tests, benchmarks and docs/ops.md draw from: each op's `cases.ts` gives seeded operands
 * and tolerances, its `reference.ts` the float64 answer; the conformance runner puts both against a backend.
 */

import type { Attributes } from '../graph/graph.ts';
import type { Shape } from '../tensor/tensor.ts';
import { Random } from '../tensor/random.ts';

/** How an operand is filled: seeded normals, uniforms, whole numbers below a bound, or given values. */
export type Fill =
  | { readonly kind: 'normal'; readonly scale?: number; readonly shift?: number }
  | { readonly kind: 'uniform'; readonly low: number; readonly high: number }
  | { readonly kind: 'below'; readonly bound: number }
  | { readonly kind: 'values'; readonly values: readonly number[] };

export interface OperandCase {
  readonly shape: Shape;
  readonly dtype?: 'f32' | 'i32';
  readonly fill?: Fill;
}

export interface OpCase {
  /** What is particular about it, unique within the op. */
  readonly name: string;
  readonly operands: Readonly<Record<string, OperandCase>>;
  readonly attributes?: Attributes;
  /** Largest relative L2 error of float32 kernels with float32 weights. */
  readonly tolerance: number;
}

/** A float64 operand or result. */
export interface HostValue {
  readonly shape: Shape;
  readonly data: Float64Array;
}

/**
 * The float64 answer. State operands are read from `operands` and their new content is returned under the same name.
 * Optional operands that a case leaves out are undefined.
 */
export type Reference = (operands: Readonly<Record<string, HostValue>>, attributes: Attributes) => Record<string, HostValue>;

/** Fills an operand with float32 (or whole) numbers that depend on the case's name and the operand's alone. */
export function fillOperand(caseName: string, operand: string, { shape, fill }: OperandCase): Float64Array {
  const size = shape.reduce((a, b) => a * b, 1);
  const random = new Random(1, `${caseName}/${operand}`);
  const how = fill ?? { kind: 'normal' };
  return Float64Array.from({ length: size }, (_, i) => {
    switch (how.kind) {
      case 'normal':
        return Math.fround((how.shift ?? 0) + (how.scale ?? 1) * random.normal());
      case 'uniform':
        return Math.fround(how.low + (how.high - how.low) * random.uniform());
      case 'below':
        return Math.floor(random.uniform() * how.bound);
      case 'values':
        return how.values[i % how.values.length]!;
    }
  });
}
