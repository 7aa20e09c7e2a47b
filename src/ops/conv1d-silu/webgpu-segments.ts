/** What the convolution's WebGPU kernels and those of its gradient share: the channel of a column, and its taps. */

import { type Segment, segmentColumns } from '../../graph/graph.ts';
import type { WebGpuBinding, WebGpuConstants, WebGpuNode } from '../webgpu-kernel.ts';
import { reads, writes } from '../webgpu-kernel.ts';

/**
 * `place_of(column)`: the channel that a column stands for, and how many of the segment's columns there are from it on
 * (0 for a column that pads). Segments are constants, `c.column0`, `c.start0`, `c.count0`, ...
 */
function placeSource(count: number): string {
  const later = Array.from({ length: count - 1 }, (_, i) => i + 1).map(
    (s) => `
  if (column >= c.column${s}) { first = c.column${s}; start = c.start${s}; columns = c.count${s}; }`,
  );
  return `
struct Place { channel: u32, live: u32 }
fn place_of(column: u32) -> Place {
  var first = c.column0;
  var start = c.start0;
  var columns = c.count0;${later.join('')}
  let i = column - first;
  return Place(start + i, select(0u, columns - i, i < columns));
}
`;
}

/** Taps of the channel: the last of the vector is the step's own. Of channels that are not live they are zero. */
function tapsSource(taps: number): string {
  if (taps === 4) return 'fn taps_of(channel: u32) -> vec4<f32> { return weight[channel]; }\n';
  const values = Array.from({ length: taps }, (_, k) => `weight[channel * ${taps}u + ${k}u]`);
  const zeros = Array.from({ length: 4 - taps }, () => '0.0');
  return `fn taps_of(channel: u32) -> vec4<f32> { return vec4<f32>(${[...zeros, ...values].join(', ')}); }\n`;
}

/**
 * `matrix_of(place)`: the taps of 4 channels, column j those of step j - 3 counted from the step's own, so that
 * `m[3] * x[t] + m[2] * x[t - 1] + ...` is what they come to; `bias_of(place)`.
 */
const VECTORS_SOURCE = `
fn matrix_of(place: Place) -> mat4x4<f32> {
  var rows = mat4x4<f32>();
  if (place.live > 0u) { rows[0] = taps_of(place.channel); }
  if (place.live > 1u) { rows[1] = taps_of(place.channel + 1u); }
  if (place.live > 2u) { rows[2] = taps_of(place.channel + 2u); }
  if (place.live > 3u) { rows[3] = taps_of(place.channel + 3u); }
  return transpose(rows);
}
fn bias_of(place: Place) -> vec4<f32> {
  if (!HAS_BIAS || place.live == 0u) { return vec4<f32>(); }
  let last = place.channel + min(place.live, 4u) - 1u;
  let at = min(vec4<u32>(place.channel) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last));
  return vec4<f32>(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
}
fn live_of(v: vec4<f32>, place: Place) -> vec4<f32> {
  return select(vec4<f32>(), v, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(place.live));
}
`;

/** Source, bindings and constants of the taps, the bias and the segments; without a bias HAS_BIAS is false. */
export function convolution(node: WebGpuNode): {
  readonly source: string;
  readonly bindings: readonly WebGpuBinding[];
  readonly constants: WebGpuConstants;
} {
  const weight = node.weight('weight');
  const taps = weight.shape[2]!;
  const segments = node.segments('segments');
  return {
    source: `const HAS_BIAS = ${node.has('bias')};\n${placeSource(segments.length)}${tapsSource(taps)}${VECTORS_SOURCE}`,
    bindings: [
      reads('weight', weight.values, taps === 4 ? 'vec4<f32>' : 'f32'),
      // WGSL wants something of that name.
      reads('bias', node.has('bias') ? node.weight('bias').values : weight.values),
    ],
    constants: segmentConstants(segments),
  };
}

/** The same for a gradient that is added to: `goal`, with the segments. */
export function gradientPlaces(node: WebGpuNode, name: 'dWeight' | 'dBias') {
  const segments = node.segments('segments');
  return {
    source: placeSource(segments.length),
    bindings: [writes('goal', node.weight(name).values)],
    constants: segmentConstants(segments),
  };
}

function segmentConstants(segments: readonly Segment[]): Record<string, number> {
  const { columns } = segmentColumns(segments);
  return Object.fromEntries(
    segments.flatMap(({ start, count }, s) => [
      [`column${s}`, columns[s]!],
      [`start${s}`, start],
      [`count${s}`, count],
    ]),
  );
}
