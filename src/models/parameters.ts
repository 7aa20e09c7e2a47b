/**
 * A model's parameters: name, shape, how they may be stored, and how they begin (section "Initialisation" of the
 * design; Mamba-2's and nn.Linear's defaults).
 */

import type { ParameterSpec } from '../graph/graph.ts';
import { Random } from '../tensor/random.ts';
import { sizeOf } from '../tensor/tensor.ts';
import type { SsmConfig } from './config.ts';

/** The next initial value of a parameter, elements in row-major order. */
export type Initialiser = (random: Random) => number;

export interface ParameterDeclaration extends ParameterSpec {
  readonly init: Initialiser;
}

export const ones: Initialiser = () => 1;
export const zeros: Initialiser = () => 0;
export const uniform =
  (bound: number): Initialiser =>
  (random) =>
    bound * (2 * random.uniform() - 1);
export const normal =
  (deviation: number): Initialiser =>
  (random) =>
    deviation * random.normal();

/** Rows of the standard initialisation of a linear map with `fanIn` inputs: U(+-1/sqrt(fanIn)). */
export const linearInit = (fanIn: number): Initialiser => uniform(1 / Math.sqrt(fanIn));

/** ln U(low, high). */
export const logUniform =
  ([low, high]: readonly [number, number]): Initialiser =>
  (random) =>
    Math.log(low + (high - low) * random.uniform());

/** The inverse softplus of a step size drawn log-uniformly from [dtMin, dtMax], at least dtInitFloor. */
export const dtBiasInit =
  ({ dtMin, dtMax, dtInitFloor }: SsmConfig): Initialiser =>
  (random) => {
    const [low, high] = [Math.log(dtMin), Math.log(dtMax)];
    const dt = Math.max(Math.exp(low + (high - low) * random.uniform()), dtInitFloor);
    return dt + Math.log(-Math.expm1(-dt));
  };

export function matrix(name: string, rows: number, columns: number, init: Initialiser): ParameterDeclaration {
  return { name, shape: [rows, columns], layout: 'matrix', init };
}

export function vector(name: string, shape: readonly number[], init: Initialiser): ParameterDeclaration {
  return { name, shape, layout: 'vector', init };
}

/** Draws rows of a parameter in order; the stream depends on the seed and the parameter's name alone. */
export function initialRows(
  { name, shape, init }: ParameterDeclaration,
  seed: number,
): (first: number, count: number) => Float32Array {
  const random = new Random(seed, name);
  const columns = sizeOf(shape.slice(1));
  let next = 0;
  return (first, count) => {
    if (first !== next) throw new RangeError('rows are drawn in order');
    next += count;
    const rows = new Float32Array(count * columns);
    for (let i = 0; i < rows.length; i++) rows[i] = init(random);
    return rows;
  };
}
