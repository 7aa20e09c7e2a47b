/** The lengths of sequences, for `last_rows` and its gradient. */

import type { WebGpuConstants, WebGpuNode } from '../webgpu-kernel.ts';

/** `length_of(sequence)`: its real rows, all `c.length` of them without lengths. The arena is `array<vec4<f32>>`. */
export const LENGTHS_SOURCE = `
fn length_of(sequence: u32) -> i32 {
  if (c.ragged == 0u) { return i32(c.length); }
  let i = c.lengths + sequence;
  return bitcast<i32>(arena[i / 4u][i % 4u]);
}
`;

/** `length`: rows a sequence has, `picks`: those that are picked. */
export function lengthsConstants(node: WebGpuNode, length: number, picks: number): WebGpuConstants {
  const ragged = node.has('lengths');
  return { length, picks, ragged: ragged ? 1 : 0, lengths: ragged ? node.buffer('lengths').offset : 0 };
}
