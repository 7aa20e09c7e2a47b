/** Which rank keeps the optimiser's state of which parameter: whole parameters, balanced by size (ZeRO, stage 1). */

import { MatMambaError } from '../errors.ts';
import type { ParameterSpec } from '../graph/graph.ts';
import { sizeOf } from '../tensor/tensor.ts';

/**
 * The owner of each parameter, the same on every rank: the largest first, each to the rank that has least (Graham 1969).
 * @throws OPTION when there are more ranks than parameters
 */
export function ownersOf(parameters: readonly Pick<ParameterSpec, 'shape'>[], size: number): number[] {
  if (size > parameters.length) {
    throw new MatMambaError('OPTION', `the state of ${parameters.length} parameters cannot be shared by ${size} processes`, {
      hint: 'use fewer processes, or do not shard the optimizer',
    });
  }
  const sizes = parameters.map(({ shape }) => sizeOf(shape));
  const loads = new Float64Array(size);
  const owners = sizes.map(() => 0);
  const largestFirst = sizes.map((_, i) => i).sort((a, b) => sizes[b]! - sizes[a]! || a - b);
  for (const i of largestFirst) {
    const lightest = loads.indexOf(Math.min(...loads));
    loads[lightest]! += Math.max(1, sizes[i]!);
    owners[i] = lightest;
  }
  return owners;
}
