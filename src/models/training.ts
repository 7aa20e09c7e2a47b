/**
 * What a model offers to a trainer: the trace of one micro-batch's forward and backward pass. Gradients are added to a
 * float32 buffer per parameter (`gradientSpec`), whatever the width, so all granularities sum up in one set.
 */

import { differentiate } from '../graph/differentiate.ts';
import type { Graph, Sym } from '../graph/graph.ts';
import { pruneDeadNodes } from '../graph/prune.ts';
import { add } from '../ops/index.ts';
import type { TrainingInputs } from './mixer.ts';
import type { ParameterSet } from './model.ts';
import type { ModelRuntime } from './runtime.ts';

/** The constants of one training program. */
export interface TrainingShape {
  readonly batch: number;
  /** Tokens of a sequence; a vision model's follow from its image size. */
  readonly length: number;
  /** Width of every layer. */
  readonly dims: readonly number[];
  /** Compute the layers' activations again in the backward pass: about a third more work, a fraction of the memory. */
  readonly recompute: boolean;
  readonly projDropRate: number;
  readonly dropPathRate: number;
  /** Share of the target that the full-width model's own prediction takes (language models); 0: none. */
  readonly distill: number;
}

/**
 * A model that can be trained. Inputs of its training program: `seed` (3) int32; `scale` (B, T, 1) or (B, 1), the
 * gradient of each loss; language: `ids`, `targets` (B, T) int32; vision: `images` (B, 3, S, S), `targets` (B, classes).
 * Output: `loss`, one number per token or image.
 */
export interface TrainableModel {
  readonly runtime: ModelRuntime;
  readonly parameters: ParameterSet;
  traceTraining(graph: Graph, shape: TrainingShape): void;
}

/** The seed input and the rates of a training trace. */
export function trainingInputs(graph: Graph, { projDropRate, dropPathRate }: TrainingShape): TrainingInputs {
  return { seed: graph.input('seed', [3], 'i32'), projDropRate, dropPathRate };
}

/** Appends the backward pass from `y`, whose gradient `dy` is known, and drops what nothing needs. */
export function traceBackward(graph: Graph, y: Sym, dy: Sym, recompute: boolean): void {
  differentiate(graph, new Map([[y, dy]]), { add: (a, b) => add({ a, b }).y, recompute });
  pruneDeadNodes(graph);
}
