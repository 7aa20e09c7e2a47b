/** Widths at which a program fits, for errors: what is too large at one granularity may run at a narrower one. */

import { TRAINED_LEVELS, widthStep } from '../elastic/granularity.ts';
import { MatMambaError } from '../errors.ts';
import type { Graph } from '../graph/graph.ts';

/** A program whose widths can be chosen. */
export interface ElasticTrace {
  readonly dModel: number;
  /** Width of every layer as it was asked for. */
  readonly dims: readonly number[];
  trace(graph: Graph, dims: readonly number[]): void;
}

/**
 * The error of a program that does not fit, with the granularity that would; other errors are returned as they are.
 * `fits` says whether a program of these widths does.
 */
export function withFittingWidths(error: unknown, elastic: ElasticTrace, fits: (dims: readonly number[]) => boolean): unknown {
  if (!(error instanceof MatMambaError) || error.code !== 'MEMORY') return error;
  const { dModel, dims } = elastic;
  const step = widthStep(dModel);
  const atMost = (width: number): number[] => dims.map((own) => Math.min(own, width));
  // The widest layer is narrower in all that is tried; what fits at one width fits at all below it.
  let fitting = 0;
  let least = Math.max(...dims) / step;
  while (least - fitting > 1) {
    const middle = Math.floor((fitting + least) / 2);
    if (fits(atMost(middle * step))) fitting = middle;
    else least = middle;
  }
  const hint =
    fitting === 0
      ? 'no granularity makes it small enough: use a smaller batch or a shorter input'
      : `${nameOfWidth(fitting * step, dModel)} would fit; so may a smaller batch or a shorter input`;
  return new MatMambaError('MEMORY', error.text, { hint, cause: error });
}

/** `mixnmatchDims: 384`, and the level that is no wider where there is one. */
function nameOfWidth(width: number, dModel: number): string {
  const level = TRAINED_LEVELS.find((candidate) => dModel / candidate <= width && dModel % candidate === 0);
  const named = level === undefined ? '' : ` (mrlLevel: ${level})`;
  return `mixnmatchDims: ${width}${named}`;
}
