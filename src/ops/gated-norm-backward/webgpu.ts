/**
 * WebGPU kernels of the gated norm's gradient, built like those of `norm_backward`: rows in registers, sums of dWeight in
 * registers and then in scratch.
 */

import { paddedColumns } from '../../graph/graph.ts';
import { type WebGpuKernel, arena, f32, reads, rowConstants, specialise } from '../webgpu-kernel.ts';
import { INVOCATION, ROWS_SOURCE } from '../webgpu-rows.ts';
import { SIGMOID_SOURCE, addPartials, gradientBlocks, rowLayout, sums } from '../webgpu-sums.ts';

/**
 * With v the normed value, hat = r v and g the gradient of hat: dv = r (g - hat mean(g hat)). Gate first: v = x silu(z),
 * g = weight dy, dx = dv silu(z), dz = dv x silu'(z). NORM_FIRST: v = x, g = weight dy silu(z), dx = dv,
 * dz = dy hat weight silu'(z). All (rows, width), dx may lie where dy does; partials: (workgroups, padded width) of dWeight.
 */
const SOURCE = `
@compute @workgroup_size(LANES)
fn gated_norm_backward(${INVOCATION}) {
  var weight_sums: array<vec4<f32>, CHUNKS>;
  for (var row = wid.x; row < c.rows; row += count.x) {
    var x: array<vec4<f32>, CHUNKS>;
    var z: array<vec4<f32>, CHUNKS>;
    var dy: array<vec4<f32>, CHUNKS>;
    var total = vec2<f32>();
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
      let i = chunk * LANES + lane;
      if (i < c.vectors) {
        x[chunk] = masked(arena[at(c.x, c.xStride, row, 4u * i)], 4u * i, c.width);
        z[chunk] = masked(arena[at(c.z, c.zStride, row, 4u * i)], 4u * i, c.width);
        dy[chunk] = masked(arena[at(c.dy, c.dyStride, row, 4u * i)], 4u * i, c.width);
        let open = z[chunk] * sigmoid(z[chunk]);
        // The gate multiplies what is normed, or its gradient.
        let v = select(x[chunk] * open, x[chunk], NORM_FIRST);
        let g = weight[i] * select(dy[chunk], dy[chunk] * open, NORM_FIRST);
        total += vec2<f32>(dot(v, v), dot(g, v));
      }
    }
    total = row_sums(total, lane) / f32(c.width);
    let r = 1.0 / sqrt(total.x + c.eps);
    let along = total.y * r * r;
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
      let i = chunk * LANES + lane;
      if (i < c.vectors) {
        let s = sigmoid(z[chunk]);
        let open = z[chunk] * s;
        let slope = s * (1.0 + z[chunk] * (1.0 - s));
        let v = select(x[chunk] * open, x[chunk], NORM_FIRST);
        let g = select(dy[chunk], dy[chunk] * open, NORM_FIRST);
        let dv = r * (weight[i] * g - along * v);
        let dx = select(dv * open, dv, NORM_FIRST);
        let dz = slope * select(dv * x[chunk], dy[chunk] * (r * v) * weight[i], NORM_FIRST);
        weight_sums[chunk] += g * (r * v);
        arena[at(c.dx, c.dxStride, row, 4u * i)] = masked(dx, 4u * i, c.width);
        arena[at(c.dz, c.dzStride, row, 4u * i)] = masked(dz, 4u * i, c.width);
      }
    }
  }
  if (!DWEIGHT) { return; }
  for (var chunk = 0u; chunk < CHUNKS; chunk++) {
    let i = chunk * LANES + lane;
    if (i < c.vectors) { arena[c.partials + wid.x * c.vectors + i] = weight_sums[chunk]; }
  }
}
`;

export const gatedNormBackwardWebGpu: WebGpuKernel = {
  scratchFloats(node) {
    const { rows, width } = node.buffer('x');
    return node.has('dWeight') ? gradientBlocks(node, rows, rowLayout(width)) * paddedColumns(width) : 0;
  },
  dispatches(node) {
    const { rows, width } = node.buffer('x');
    const layout = rowLayout(width);
    const { lanes, chunks, vectors } = layout;
    const blocks = gradientBlocks(node, rows, layout);
    const values = { LANES: lanes, CHUNKS: chunks, NORM_FIRST: node.flag('normBeforeGate'), DWEIGHT: node.has('dWeight') };
    const partials = { offset: node.scratch, rows: blocks, stride: paddedColumns(width), width };
    return [
      {
        kind: 'dispatch',
        source: specialise(values) + ROWS_SOURCE + SIGMOID_SOURCE + sums('row_sums', 'vec2<f32>', lanes) + SOURCE,
        entry: 'gated_norm_backward',
        workgroups: [blocks],
        bindings: [arena('vec4<f32>'), reads('weight', node.weight('weight').values, 'vec4<f32>')],
        constants: {
          ...rowConstants(node, 'x', 'z', 'dy', 'dx', 'dz'),
          rows,
          width,
          vectors,
          partials: node.scratch / 4,
          eps: f32(node.number('eps')),
        },
      },
      ...(node.has('dWeight') ? [addPartials(node.weight('dWeight').values, partials)] : []),
    ];
  },
};
