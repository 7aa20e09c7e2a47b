/** Drop path: samples of T rows x D are kept or dropped as a whole; y may be x. */

import { paddedColumns } from '../../graph/graph.ts';
import { PHILOX_SOURCE, keepConstants } from '../dropout/webgpu-source.ts';
import { type WebGpuKernel, arena, fold, rowConstants } from '../webgpu-kernel.ts';
import { BLOCK, INVOCATION, ROWS_SOURCE } from '../webgpu-rows.ts';

/** Vectors of 4 columns that an invocation takes. */
const VECTORS = 4;

/** A workgroup takes a piece of one sample, for which its first invocation draws. A dropped sample is not read. */
const SOURCE = `
fn seed(i: u32) -> u32 { return bitcast<u32>(arena[(c.seed + i) / 4u][(c.seed + i) % 4u]); }

var<workgroup> drawn: f32;

@compute @workgroup_size(${BLOCK})
fn drop_path(${INVOCATION}) {
  let group = folded(wid, count);
  let sample = group / c.pieces;
  if (sample >= c.samples) { return; }
  if (lane == 0u) { drawn = keep_scale4(plus(vec2<u32>(seed(2u), 0u), sample), seed(0u), seed(1u)).x; }
  let keep = workgroupUniformLoad(&drawn);
  let first = (group % c.pieces) * ${VECTORS * BLOCK}u + lane;
  for (var k = 0u; k < ${VECTORS}u; k++) {
    let i = first + k * ${BLOCK}u;
    if (i >= c.length * c.vectors) { return; }
    let row = sample * c.length + i / c.vectors;
    let column = 4u * (i % c.vectors);
    var value = vec4<f32>();
    if (keep != 0.0) { value = keep * masked(arena[at(c.x, c.xStride, row, column)], column, c.width); }
    arena[at(c.y, c.yStride, row, column)] = value;
  }
}
`;

export const dropPathWebGpu: WebGpuKernel = {
  dispatches(node) {
    const [samples, length, width] = node.buffer('y').shape as [number, number, number];
    const vectors = paddedColumns(width) / 4;
    const pieces = Math.ceil((length * vectors) / (VECTORS * BLOCK));
    return [
      {
        kind: 'dispatch',
        source: ROWS_SOURCE + PHILOX_SOURCE + SOURCE,
        entry: 'drop_path',
        workgroups: fold(samples * pieces),
        bindings: [arena('vec4<f32>')],
        constants: {
          ...rowConstants(node, 'x', 'y'),
          seed: node.buffer('seed').offset,
          samples,
          pieces,
          length,
          width,
          vectors,
          ...keepConstants(node.number('stream'), node.number('rate')),
        },
      },
    ];
  },
};
