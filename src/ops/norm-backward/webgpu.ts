/**
 * WebGPU kernels of the norms' gradient. Workgroups take rows one after another, each row in their registers; sums of dWeight
 * and dBias stay in registers too and are written to scratch at the end, a row of them a workgroup, which a second dispatch
 * adds up.
 */

import { paddedColumns } from '../../graph/graph.ts';
import { type WebGpuKernel, type WebGpuNode, arena, f32, reads, rowConstants, specialise } from '../webgpu-kernel.ts';
import { INVOCATION, ROWS_SOURCE } from '../webgpu-rows.ts';
import { addPartials, gradientBlocks, rowLayout, sums } from '../webgpu-sums.ts';

/**
 * dx = dSum + r (g - mean(g) [CENTER] - hat mean(g hat)), g = weight dy; all (rows, width), dx may lie where dy does.
 * partials: (workgroups, dWeight then dBias, padded width).
 */
const SOURCE = `
@compute @workgroup_size(LANES)
fn norm_backward(${INVOCATION}) {
  var weight_sums: array<vec4<f32>, CHUNKS>;
  var bias_sums: array<vec4<f32>, CHUNKS>;
  for (var row = wid.x; row < c.rows; row += count.x) {
    var x: array<vec4<f32>, CHUNKS>;
    var dy: array<vec4<f32>, CHUNKS>;
    var first = vec2<f32>();
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
      let i = chunk * LANES + lane;
      if (i < c.vectors) {
        let v = masked(arena[at(c.x, c.xStride, row, 4u * i)], 4u * i, c.width);
        let d = masked(arena[at(c.dy, c.dyStride, row, 4u * i)], 4u * i, c.width);
        x[chunk] = v;
        dy[chunk] = d;
        let g = d * weight[i];
        if (CENTER) { first += vec2<f32>(v.x + v.y + v.z + v.w, g.x + g.y + g.z + g.w); }
        else { first += vec2<f32>(dot(v, v), dot(g, v)); }
      }
    }
    first = row_sums(first, lane) / f32(c.width);
    var second = first;
    var mean_g = 0.0;
    if (CENTER) {
      mean_g = first.y;
      second = vec2<f32>();
      for (var chunk = 0u; chunk < CHUNKS; chunk++) {
        let i = chunk * LANES + lane;
        if (i < c.vectors) {
          let v = masked(x[chunk] - first.x, 4u * i, c.width);
          x[chunk] = v;
          second += vec2<f32>(dot(v, v), dot(dy[chunk] * weight[i], v));
        }
      }
      second = row_sums(second, lane) / f32(c.width);
    }
    let r = 1.0 / sqrt(second.x + c.eps);
    let along = second.y * r * r;
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
      let i = chunk * LANES + lane;
      if (i < c.vectors) {
        var dx = r * (dy[chunk] * weight[i] - mean_g - along * x[chunk]);
        weight_sums[chunk] += dy[chunk] * (x[chunk] * r);
        bias_sums[chunk] += dy[chunk];
        if (HAS_DSUM) { dx += arena[at(c.dSum, c.dSumStride, row, 4u * i)]; }
        arena[at(c.dx, c.dxStride, row, 4u * i)] = masked(dx, 4u * i, c.width);
      }
    }
  }
  for (var chunk = 0u; chunk < CHUNKS; chunk++) {
    let i = chunk * LANES + lane;
    if (i < c.vectors) {
      let to = c.partials + wid.x * (u32(DWEIGHT) + u32(DBIAS)) * c.vectors + i;
      if (DWEIGHT) { arena[to] = weight_sums[chunk]; }
      if (DBIAS) { arena[to + u32(DWEIGHT) * c.vectors] = bias_sums[chunk]; }
    }
  }
}
`;

const targetsOf = (node: WebGpuNode): string[] => ['dWeight', 'dBias'].filter((name) => node.has(name));

export const normBackwardWebGpu: WebGpuKernel = {
  scratchFloats(node) {
    const { rows, width } = node.buffer('x');
    return gradientBlocks(node, rows, rowLayout(width)) * targetsOf(node).length * paddedColumns(width);
  },
  dispatches(node) {
    const { rows, width } = node.buffer('x');
    const layout = rowLayout(width);
    const { lanes, chunks, vectors } = layout;
    const blocks = gradientBlocks(node, rows, layout);
    const targets = targetsOf(node);
    const values = {
      LANES: lanes,
      CHUNKS: chunks,
      CENTER: node.flag('center'),
      HAS_DSUM: node.has('dSum'),
      DWEIGHT: node.has('dWeight'),
      DBIAS: node.has('dBias'),
    };
    const stride = targets.length * paddedColumns(width);
    return [
      {
        kind: 'dispatch',
        source: specialise(values) + ROWS_SOURCE + sums('row_sums', 'vec2<f32>', lanes) + SOURCE,
        entry: 'norm_backward',
        workgroups: [blocks],
        bindings: [arena('vec4<f32>'), reads('weight', node.weight('weight').values, 'vec4<f32>')],
        constants: {
          ...rowConstants(node, 'x', 'dy', 'dSum', 'dx'),
          rows,
          width,
          vectors,
          partials: node.scratch / 4,
          eps: f32(node.number('eps')),
        },
      },
      ...targets.map((name, i) => {
        const offset = node.scratch + i * paddedColumns(width);
        return addPartials(node.weight(name).values, { offset, rows: blocks, stride, width });
      }),
    ];
  },
};
