/** What the scan's WebGPU kernels and those of its gradient share: how a sequence is cut, steps and decays, columns. */

import { paddedColumns } from '../../graph/graph.ts';
import { type WebGpuBinding, type WebGpuConstants, type WebGpuNode, f32, reads } from '../webgpu-kernel.ts';

/** Steps of a chunk. */
export const CHUNK = 64;

/** Floats of scratch that one group of sequences may take; more sequences go in several groups, one after another. */
const GROUP_FLOATS = 2 ** 24;

export interface ScanShape {
  readonly batch: number;
  readonly length: number;
  readonly chunks: number;
  readonly heads: number;
  readonly headdim: number;
  readonly dState: number;
  /** E and its columns with padding, as N and its. */
  readonly width: number;
  readonly columns: number;
  readonly stateColumns: number;
}

export function scanShape(node: WebGpuNode): ScanShape {
  const length = node.number('length');
  const width = node.buffer('x').width;
  const dState = node.buffer('b').width;
  return {
    batch: node.number('batch'),
    length,
    chunks: Math.ceil(length / CHUNK),
    heads: node.buffer('dt').width,
    headdim: node.number('headdim'),
    dState,
    width,
    columns: paddedColumns(width),
    stateColumns: paddedColumns(dState),
  };
}

/** Sequences of a group, each of which takes so many floats of scratch. */
export function groupOf(batch: number, floats: number): number {
  return Math.max(1, Math.min(batch, Math.floor(GROUP_FLOATS / floats)));
}

/** The first sequence and the count of each group. */
export function groupsOf(batch: number, group: number): { first: number; count: number }[] {
  return Array.from({ length: Math.ceil(batch / group) }, (_, i) => ({
    first: i * group,
    count: Math.min(group, batch - i * group),
  }));
}

export const parameterBindings = (node: WebGpuNode): WebGpuBinding[] => [
  reads('dtBias', node.weight('dtBias').values),
  reads('aLog', node.weight('aLog').values),
];

/** Limits of dt; what is infinite becomes the largest number. */
export function dtLimits(node: WebGpuNode): WebGpuConstants {
  const finite = (value: number): number => Math.min(Math.max(value, -3e38), 3e38);
  return { dtMin: f32(finite(node.number('dtMin'))), dtMax: f32(finite(node.number('dtMax'))) };
}

/** Offsets of what says which sequences have how many steps and which state. */
export function sequenceConstants(node: WebGpuNode): WebGpuConstants {
  return {
    state: node.has('state') ? node.state('state').offset : 0,
    slots: node.has('slots') ? node.buffer('slots').offset : 0,
    ragged: Number(node.has('lengths')),
    lengths: node.has('lengths') ? node.buffer('lengths').offset : 0,
  };
}

/** `component(i)`: a float of the arena of vectors; `real_steps(b)`: those of a sequence that are real. */
export const ARENA_SOURCE = `
fn component(i: u32) -> f32 { return arena[i / 4u][i % 4u]; }
`;
export const LENGTHS_SOURCE = `
fn real_steps(b: u32) -> u32 {
  if (c.ragged == 0u) { return c.length; }
  return bitcast<u32>(component(c.lengths + b));
}
`;

/**
 * `step_of(raw)`: softplus within the limits; `decay_of(rate, step)`: exp(-rate * step); `rate_of(aLog)`. The exponential
 * is of numbers that are not positive alone, log(1 + u) = 2 atanh(u / (2 + u)) by its series, u from 0 to 1.
 */
export const STEP_SOURCE = `
fn softplus(raw: f32) -> f32 {
  let u = exp(-abs(raw));
  let z = u / (2.0 + u);
  let q = z * z;
  let series = 1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q * (1.0 / 13.0 + q / 15.0))))));
  return max(raw, 0.0) + 2.0 * z * series;
}
fn step_of(raw: f32) -> f32 { return clamp(softplus(raw), c.dtMin, c.dtMax); }
fn rate_of(log: f32) -> f32 { return exp(min(log, 80.0)); }
fn decay_of(rate: f32, step: f32) -> f32 { return exp(max(-rate * step, -120.0)); }
`;

/**
 * Of columns in vectors of 4 with `c.width` columns in all: `heads_of(column)`, `live_columns(v, column)`, and
 * `coefficients_of(at, heads)`: the heads' coefficients (see `webgpu-prepare.ts`) for each column, `at` being those of the
 * first head.
 */
export const COLUMNS_SOURCE = `
fn columns_of(column: u32) -> vec4<u32> { return min(vec4<u32>(column, column + 1u, column + 2u, column + 3u), vec4<u32>(c.width - 1u)); }
fn heads_of(column: u32) -> vec4<u32> { return columns_of(column) / c.headdim; }
fn live_columns(v: vec4<f32>, column: u32) -> vec4<f32> {
  return select(vec4<f32>(), v, vec4<u32>(column, column + 1u, column + 2u, column + 3u) < vec4<u32>(c.width));
}
/* Column vectors: steps, their decays, decays before, decays after. */
fn coefficients_of(at: u32, heads: vec4<u32>) -> mat4x4<f32> {
  let v = arena[at + heads.x];
  if (heads.x == heads.w) { return mat4x4<f32>(vec4<f32>(v.x), vec4<f32>(v.y), vec4<f32>(v.z), vec4<f32>(v.w)); }
  return transpose(mat4x4<f32>(v, arena[at + heads.y], arena[at + heads.z], arena[at + heads.w]));
}
/* What x of a step is worth in the state at the chunk's end or, backwards, dy of it in the gradient of that at its start. */
fn weight_of(at: u32, heads: vec4<u32>, backwards: bool) -> vec4<f32> {
  let m = coefficients_of(at, heads);
  return select(m[0] * m[3], m[2], backwards);
}
`;

/** `state_columns(at, n)`: 4 of a row of b or c from column n on, zeros beyond the N that there are. */
export const STATE_COLUMNS_SOURCE = `
fn state_columns(at: u32, n: u32) -> vec4<f32> {
  return select(vec4<f32>(), arena[(at + n) / 4u], vec4<u32>(n, n + 1u, n + 2u, n + 3u) < vec4<u32>(c.dState));
}
`;
