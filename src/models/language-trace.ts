/** The language model's programs: embedding, the stack, and what the head makes of it. */

import { gradientSpec } from '../graph/differentiate.ts';
import type { Graph, Sym } from '../graph/graph.ts';
import { embedding, lastRows, linear, linearCrossEntropy, linearCrossEntropyBackward, sample } from '../ops/index.ts';
import { SAMPLE_RANDOM, SAMPLE_SETTINGS } from '../ops/sample/op.ts';
import { paddedVocabSize } from './config.ts';
import { EMBEDDING, HEAD, type LanguageDeclaration } from './language-shape.ts';
import type { MixerState } from './mixer.ts';
import { traceStack } from './stack.ts';
import { type TrainingShape, traceBackward, trainingInputs } from './training.ts';

/** What one program computes beside the stack. */
export type Head =
  | { readonly kind: 'logits'; readonly count: number | 'all' }
  | { readonly kind: 'draw' }
  | { readonly kind: 'loss' }
  | { readonly kind: 'none' };

/** The constants of one program. */
export interface LanguageShape {
  readonly batch: number;
  readonly length: number;
  /** Width of every layer. */
  readonly dims: readonly number[];
  readonly head: Head;
  /** Whether state is carried, and whether sequences have lengths of their own. */
  readonly carried: boolean;
  readonly ragged: boolean;
}

/** The table that tokens are looked up in, and the head's weight, which may be the same. */
function traceWeights(graph: Graph, { parameters: { declared } }: LanguageDeclaration): { table: Sym; weight: Sym } {
  const table = graph.parameter(declared.get(EMBEDDING)!);
  return { table, weight: declared.has(HEAD) ? graph.parameter(declared.get(HEAD)!) : table };
}

/** Inputs: ids, and slots, lengths, targets, settings, random where the shape asks for them. Output: y, unless it is `none`. */
export function traceLanguageModel(
  graph: Graph,
  declaration: LanguageDeclaration,
  states: readonly MixerState[],
  { batch, length, dims, head, carried, ragged }: LanguageShape,
): void {
  const { config, stack, parameters } = declaration;
  const { table, weight } = traceWeights(graph, declaration);
  const ids = graph.input('ids', [batch, length], 'i32');
  const slots = carried ? graph.input('slots', [batch], 'i32') : undefined;
  const lengths = ragged ? graph.input('lengths', [batch], 'i32') : undefined;
  const h = graph.in('backbone.embedding', () => embedding({ ids, weight: table }).y);
  const y = traceStack(graph, h, stack, dims, parameters.declared, { batch, length, slots, lengths }, states);
  if (head.kind === 'none') return;
  graph.in('lm_head', () => {
    if (head.kind === 'loss') {
      const targets = graph.input('targets', [batch, length], 'i32');
      graph.output('y', linearCrossEntropy({ x: y, weight, targets }).loss);
      return;
    }
    const count = head.kind === 'draw' ? 1 : head.count;
    // Of one token there is only one row to pick.
    const everyRow = count === 'all' || (count === length && (!lengths || length === 1));
    const rows: Sym = everyRow ? y : lastRows({ x: y, lengths }, { count }).y;
    const logits = linear({ x: rows, weight }, { segments: [{ start: 0, count: paddedVocabSize(config) }] }).y;
    if (head.kind === 'logits') {
      graph.output('y', logits);
      return;
    }
    const settings = graph.input('settings', [SAMPLE_SETTINGS], 'f32');
    const random = graph.input('random', [SAMPLE_RANDOM], 'i32');
    graph.output('y', sample({ logits, settings, random }).ids);
  });
}

/** One micro-batch of training; see `TrainableModel`. */
export function traceLanguageTraining(graph: Graph, declaration: LanguageDeclaration, shape: TrainingShape): void {
  const { batch, length, dims } = shape;
  const { config, stack, parameters } = declaration;
  const { declared } = parameters;
  const { table, weight } = traceWeights(graph, declaration);
  const ids = graph.input('ids', [batch, length], 'i32');
  const targets = graph.input('targets', [batch, length], 'i32');
  const dLoss = graph.input('scale', [batch, length, 1], 'f32');
  const sequence = { batch, length, training: trainingInputs(graph, shape) };
  const h = graph.in('backbone.embedding', () => embedding({ ids, weight: table }).y);
  const y = traceStack(graph, h, stack, dims, declared, sequence, []);
  // The teacher is the full width without dropout; no gradient is asked of it.
  const full = dims.map(() => config.dModel);
  const teacher = shape.distill > 0 ? traceStack(graph, h, stack, full, declared, { batch, length }, []) : undefined;
  const dWeight = graph.parameter(gradientSpec(declared.get(weight.value.name)!));
  const head = graph.in('lm_head', () =>
    linearCrossEntropyBackward({ x: y, weight, targets, dLoss, teacher, dWeight }, { distill: shape.distill }),
  );
  graph.output('loss', head.loss);
  traceBackward(graph, y, head.dx, shape.recompute);
}
