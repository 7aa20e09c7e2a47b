/** WebGPU kernel of the gated norm: a workgroup for a row, which it holds in registers, read once and written once. */

import { type WebGpuKernel, arena, f32, fold, reads, rowConstants, specialise } from '../webgpu-kernel.ts';
import { INVOCATION, ROWS_SOURCE } from '../webgpu-rows.ts';
import { SIGMOID_SOURCE, rowLayout, sums } from '../webgpu-sums.ts';

/** y = rms(x silu(z)) weight, or with NORM_FIRST rms(x) weight silu(z); all (rows, width), y may lie where x does. */
const SOURCE = `
@compute @workgroup_size(LANES)
fn gated_norm(${INVOCATION}) {
  let row = folded(wid, count);
  if (row >= c.rows) { return; }
  var values: array<vec4<f32>, CHUNKS>;
  var gates: array<vec4<f32>, CHUNKS>;
  var square = 0.0;
  for (var chunk = 0u; chunk < CHUNKS; chunk++) {
    let i = chunk * LANES + lane;
    if (i < c.vectors) {
      let z = arena[at(c.z, c.zStride, row, 4u * i)];
      let open = z * sigmoid(z);
      var v = masked(arena[at(c.x, c.xStride, row, 4u * i)], 4u * i, c.width);
      if (!NORM_FIRST) { v = masked(v * open, 4u * i, c.width); }
      values[chunk] = v;
      gates[chunk] = open;
      square += dot(v, v);
    }
  }
  let scale = 1.0 / sqrt(row_sum(square, lane) / f32(c.width) + c.eps);
  for (var chunk = 0u; chunk < CHUNKS; chunk++) {
    let i = chunk * LANES + lane;
    if (i < c.vectors) {
      var y = values[chunk] * scale * weight[i];
      if (NORM_FIRST) { y *= gates[chunk]; }
      arena[at(c.y, c.yStride, row, 4u * i)] = masked(y, 4u * i, c.width);
    }
  }
}
`;

export const gatedNormWebGpu: WebGpuKernel = {
  dispatches(node) {
    const { rows, width } = node.buffer('x');
    const { lanes, chunks, vectors } = rowLayout(width);
    const values = { LANES: lanes, CHUNKS: chunks, NORM_FIRST: node.flag('normBeforeGate') };
    return [
      {
        kind: 'dispatch',
        source: specialise(values) + ROWS_SOURCE + SIGMOID_SOURCE + sums('row_sum', 'f32', lanes) + SOURCE,
        entry: 'gated_norm',
        workgroups: fold(rows),
        bindings: [arena('vec4<f32>'), reads('weight', node.weight('weight').values, 'vec4<f32>')],
        constants: { ...rowConstants(node, 'x', 'z', 'y'), rows, width, vectors, eps: f32(node.number('eps')) },
      },
    ];
  },
};
