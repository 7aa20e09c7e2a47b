/**
 * The MatMamba2 mixer: its parameters, its state, and its trace at any width. Section 2 of the paper (and Mamba-2,
 * Dao & Gu 2024, section 7) in ten lines; every slice below is a prefix, so every width is a view of one set of
 * weights.
 */

import { type Graph, type Segment, type StateSpec, type Sym, segmentColumns } from '../graph/graph.ts';
import { chunkScan, conv1dSilu, dropout, gatedNorm, gatedSilu, linear } from '../ops/index.ts';
import type { SsmConfig } from './config.ts';
import {
  type Initialiser,
  type ParameterDeclaration,
  dtBiasInit,
  linearInit,
  logUniform,
  matrix,
  ones,
  uniform,
  vector,
  zeros,
} from './parameters.ts';

/** The sizes of a mixer, by the letters of the design. */
export interface MixerShape {
  readonly D: number;
  readonly E: number;
  readonly P: number;
  readonly H: number;
  readonly N: number;
  readonly taps: number;
  readonly config: SsmConfig;
}

export function mixerShape(dModel: number, config: SsmConfig): MixerShape {
  const E = config.expand * dModel;
  const P = dModel / 32;
  return { D: dModel, E, P, H: E / P, N: config.dState, taps: config.dConv, config };
}

/** One width of a mixer: e inner channels in h heads, and where they lie in the full weights. */
export interface LayerWidth {
  readonly dims: number;
  readonly inner: number;
  readonly heads: number;
  /** Rows of in_proj: z, x, B, C, dt. */
  readonly projected: readonly Segment[];
  /** Channels of the convolution: x, B, C. */
  readonly convolved: readonly Segment[];
}

export function layerWidth({ E, P, N }: MixerShape, dims: number): LayerWidth {
  const inner = 2 * dims;
  const heads = inner / P;
  return {
    dims,
    inner,
    heads,
    projected: [
      { start: 0, count: inner },
      { start: E, count: inner },
      { start: 2 * E, count: N },
      { start: 2 * E + N, count: N },
      { start: 2 * E + 2 * N, count: heads },
    ],
    convolved: [
      { start: 0, count: inner },
      { start: E, count: N },
      { start: E + N, count: N },
    ],
  };
}

/** Parameters of a mixer under `prefix`; `outScale` divides out_proj's initial weight, `biases` starts the biases. */
export function mixerParameters(
  prefix: string,
  shape: MixerShape,
  outScale: number,
  biases: (fanIn: number) => Initialiser,
): ParameterDeclaration[] {
  const { D, E, P, H, N, taps, config } = shape;
  const rows = 2 * E + 2 * N + H;
  const channels = E + 2 * N;
  const taper = uniform(config.convInit ?? 1 / Math.sqrt(taps));
  const out = uniform(1 / Math.sqrt(E) / outScale);
  // Storage other than float32 is cut into groups of 8 rows, where B, C and dt have to begin.
  const precise = N % 8 !== 0;
  return [
    { ...matrix(`${prefix}in_proj.weight`, rows, D, linearInit(D)), ...(precise ? { precise } : {}) },
    ...(config.bias ? [vector(`${prefix}in_proj.bias`, [rows], biases(D))] : []),
    { name: `${prefix}conv1d.weight`, shape: [channels, 1, taps], layout: 'taps', init: taper },
    ...(config.convBias ? [vector(`${prefix}conv1d.bias`, [channels], uniform(1 / Math.sqrt(taps)))] : []),
    vector(`${prefix}dt_bias`, [H], dtBiasInit(config)),
    vector(`${prefix}A_log`, [H], logUniform(config.AInitRange)),
    vector(`${prefix}D`, [config.DHasHdim ? H * P : H], ones),
    ...(config.rmsnorm ? [vector(`${prefix}norm.weight`, [E], ones)] : []),
    matrix(`${prefix}out_proj.weight`, D, E, out),
    ...(config.bias ? [vector(`${prefix}out_proj.bias`, [D], biases(E))] : []),
  ];
}

/** Biases inside a model start at 0; a standalone block's as nn.Linear's. */
export const zeroBiases = (): Initialiser => zeros;

/** The state of one layer: the convolution's window and the scan's S. */
export interface MixerState {
  readonly conv: StateSpec;
  readonly ssm: StateSpec;
}

/** Places a layer's state in a slot from `offset` (floats) on; returns where the next one begins. */
export function mixerState(name: string, { E, P, H, N, taps }: MixerShape, offset: number): { state: MixerState; end: number } {
  const align = (n: number): number => Math.ceil(n / 16) * 16;
  const conv = { name: `${name}.conv`, shape: [taps - 1, E + 2 * N], offset };
  const ssm = { name: `${name}.ssm`, shape: [H, P, N], offset: align(offset + (taps - 1) * (E + 2 * N)) };
  return { state: { conv, ssm }, end: align(ssm.offset + H * P * N) };
}

/** What a trace with carried state reads at run time. */
export interface SequenceInputs {
  readonly batch: number;
  readonly length: number;
  /** Present when the call carries state. */
  readonly slots?: Sym | undefined;
  readonly lengths?: Sym | undefined;
  /** Present in training. */
  readonly training?: TrainingInputs | undefined;
}

/** What a trace for training reads: the seed of its random numbers, and the rates that use them. */
export interface TrainingInputs {
  /** (3) int32: a key, another one for every micro-batch, and the number of the first sample. */
  readonly seed: Sym;
  readonly projDropRate: number;
  readonly dropPathRate: number;
}

/** Streams of random numbers of one layer. */
export const STREAMS_PER_LAYER = 4;

/** Parameters of a graph by name, undefined where the model has none. */
export type Weights = (name: string) => Sym | undefined;

/** u: (B, T, D) -> (B, T, D) at the width of `dims`; `stream` is the first of this layer's random streams. */
export function traceMixer(
  u: Sym,
  shape: MixerShape,
  dims: number,
  weights: Weights,
  sequence: SequenceInputs,
  state?: MixerState,
  stream = 0,
): Sym {
  const { config, P } = shape;
  const { inner, heads, projected, convolved } = layerWidth(shape, dims);
  const { batch, length, slots, lengths } = sequence;
  const w = (name: string): Sym => weights(name)!;
  const carried = (spec: StateSpec | undefined): Record<string, Sym | undefined> =>
    slots && spec ? { state: u.graph.state(spec), slots, lengths } : {};

  const dropped = (x: Sym, at: number): Sym => {
    const { seed, projDropRate: rate = 0 } = sequence.training ?? {};
    return seed && rate > 0 ? dropout({ x, seed }, { rate, stream: stream + at, length }).y : x;
  };

  const rows = dropped(
    linear({ x: u, weight: w('in_proj.weight'), bias: weights('in_proj.bias') }, { segments: projected }).y,
    0,
  );
  const [z, xBC, , , dt] = segmentColumns(projected).columns as [number, number, number, number, number];
  const convolution = { x: rows.columns(xBC, dt - xBC), weight: w('conv1d.weight'), bias: weights('conv1d.bias') };
  const { y: mixed } = conv1dSilu({ ...convolution, ...carried(state?.conv) }, { segments: convolved, batch, length });
  const [x, b, c] = segmentColumns(convolved).columns as [number, number, number];
  const scanned = chunkScan(
    {
      x: mixed.columns(x, inner),
      b: mixed.columns(b, shape.N),
      c: mixed.columns(c, shape.N),
      dt: rows.columns(dt, heads),
      dtBias: w('dt_bias'),
      aLog: w('A_log'),
      d: w('D'),
      ...carried(state?.ssm),
    },
    { batch, length, headdim: P, dtMin: config.dtLimit[0], dtMax: config.dtLimit[1], dHasHdim: config.DHasHdim },
  ).y;
  const gate = rows.columns(z, inner);
  const gated = config.rmsnorm
    ? gatedNorm({ x: scanned, z: gate, weight: w('norm.weight') }, { normBeforeGate: config.normBeforeGate }).y
    : gatedSilu({ x: scanned, z: gate }).y;
  const out = { x: gated, weight: w('out_proj.weight'), bias: weights('out_proj.bias') };
  return dropped(linear(out, { segments: [{ start: 0, count: shape.D }] }).y, 1);
}

/** The symbol of a declared parameter, under a prefix. */
export function weightsOf(graph: Graph, parameters: ReadonlyMap<string, ParameterDeclaration>, prefix: string): Weights {
  return (name) => {
    const declaration = parameters.get(prefix + name);
    return declaration && graph.parameter(declaration);
  };
}
