/**
 * The stack of residual layers that the language and the vision model share: r = r + h; h = mixer(norm(r)), with an
 * optional gated MLP after each mixer, then the final norm. The residual stream is float32.
 */

import type { Graph, Sym } from '../graph/graph.ts';
import { addNorm, dropPath, gatedSilu, linear, norm } from '../ops/index.ts';
import {
  mixerParameters,
  type MixerShape,
  mixerState,
  type MixerState,
  type SequenceInputs,
  STREAMS_PER_LAYER,
  traceMixer,
  type TrainingInputs,
  type Weights,
  weightsOf,
  zeroBiases,
} from './mixer.ts';
import { type ParameterDeclaration, linearInit, matrix, ones, uniform, vector, zeros } from './parameters.ts';

/** The MLP's hidden width is rounded up to a multiple of this. */
const MLP_MULTIPLE = 128;

export interface StackShape {
  readonly mixer: MixerShape;
  readonly nLayer: number;
  /** Hidden width of the MLP, rounded; 0: none. */
  readonly hidden: number;
  /** LayerNorm instead of RMSNorm. */
  readonly center: boolean;
  readonly eps: number;
  /** Divides the initial out_proj and fc2 weights. */
  readonly outScale: number;
  /** `backbone.` for the language model, empty for vision. */
  readonly prefix: string;
}

export function hiddenWidth(dIntermediate: number): number {
  return Math.ceil(dIntermediate / MLP_MULTIPLE) * MLP_MULTIPLE;
}

function normParameters(name: string, { mixer, center }: StackShape): ParameterDeclaration[] {
  return [vector(`${name}.weight`, [mixer.D], ones), ...(center ? [vector(`${name}.bias`, [mixer.D], zeros)] : [])];
}

export function stackParameters(stack: StackShape): ParameterDeclaration[] {
  const { mixer, nLayer, hidden, outScale, prefix } = stack;
  const layers = Array.from({ length: nLayer }, (_, i) => {
    const layer = `${prefix}layers.${i}.`;
    return [
      ...normParameters(`${layer}norm`, stack),
      ...mixerParameters(`${layer}mixer.`, mixer, outScale, zeroBiases),
      ...(hidden > 0
        ? [
            ...normParameters(`${layer}norm2`, stack),
            matrix(`${layer}mlp.fc1.weight`, 2 * hidden, mixer.D, linearInit(mixer.D)),
            matrix(`${layer}mlp.fc2.weight`, mixer.D, hidden, uniform(1 / Math.sqrt(hidden) / outScale)),
          ]
        : []),
    ];
  });
  return [...layers.flat(), ...normParameters(`${prefix}norm_f`, stack)];
}

/** The states of all layers in one slot, and the slot's size in bytes. */
export function stackState({ mixer, nLayer }: Pick<StackShape, 'mixer' | 'nLayer'>): { layers: MixerState[]; slotBytes: number } {
  let floats = 0;
  const layers = Array.from({ length: nLayer }, (_, i) => {
    const { state, end } = mixerState(`layers.${i}`, mixer, floats);
    floats = end;
    return state;
  });
  return { layers, slotBytes: 4 * floats };
}

/** h: (B, T, D) -> norm_f of the stack's output, (B, T, D). `dims` holds one width per layer. */
export function traceStack(
  graph: Graph,
  h: Sym,
  stack: StackShape,
  dims: readonly number[],
  parameters: ReadonlyMap<string, ParameterDeclaration>,
  sequence: SequenceInputs,
  states: readonly MixerState[],
): Sym {
  const { prefix, hidden, center, eps } = stack;
  const normed = (name: string, x: Sym, residual: Sym | undefined): { y: Sym; sum: Sym } => {
    const w = weightsOf(graph, parameters, `${name}.`);
    const operands = { x, weight: w('weight'), bias: w('bias') };
    return residual ? addNorm({ ...operands, residual }, { eps, center }) : { y: norm(operands, { eps, center }).y, sum: x };
  };
  let residual: Sym | undefined;
  let output = h;
  for (const [i, width] of dims.entries()) {
    const layer = `${prefix}layers.${i}`;
    const first = normed(`${layer}.norm`, output, residual);
    residual = first.sum;
    const stream = i * STREAMS_PER_LAYER;
    const weights = weightsOf(graph, parameters, `${layer}.mixer.`);
    const mixed = (): Sym => traceMixer(first.y, stack.mixer, width, weights, sequence, states[i], stream);
    output = graph.in(`${layer}.mixer`, () => graph.inRegion(mixed));
    output = dropBranch(output, sequence.training, i, stack.nLayer, stream + STREAMS_PER_LAYER - 1);
    if (hidden > 0) {
      const second = normed(`${layer}.norm2`, output, residual);
      residual = second.sum;
      output = graph.in(`${layer}.mlp`, () => traceMlp(second.y, hidden, weightsOf(graph, parameters, `${layer}.mlp.`)));
    }
  }
  return normed(`${prefix}norm_f`, output, residual).y;
}

/** Drop path on layer i's branch: the rate grows linearly from 0 to the last layer's. */
function dropBranch(x: Sym, training: TrainingInputs | undefined, layer: number, nLayer: number, stream: number): Sym {
  const rate = training && nLayer > 1 ? (training.dropPathRate * layer) / (nLayer - 1) : 0;
  return training && rate > 0 ? dropPath({ x, seed: training.seed }, { rate, stream }).y : x;
}

/** fc1 -> (y, gate); fc2(y * silu(gate)). Never sliced. */
function traceMlp(x: Sym, hidden: number, weights: Weights): Sym {
  const halves = [
    { start: 0, count: hidden },
    { start: hidden, count: hidden },
  ];
  const up = linear({ x, weight: weights('fc1.weight') }, { segments: halves }).y;
  const gated = gatedSilu({ x: up.columns(0, hidden), z: up.columns(hidden, hidden) }).y;
  return linear({ x: gated, weight: weights('fc2.weight') }, { segments: [{ start: 0, count: x.width }] }).y;
}
