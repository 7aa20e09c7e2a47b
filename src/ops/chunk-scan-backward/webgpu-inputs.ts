/** WGSL of the gradient of the scan's x, and of what the gradients of dt and of the decays take from each column. */

import { OUTPUT_COLUMNS, OUTPUT_INVOCATIONS, TURNED_CELLS, TURNED_PRODUCT } from '../chunk-scan/webgpu-outputs.ts';
import { CHUNK } from '../chunk-scan/webgpu-parts.ts';
import { unrolled } from '../webgpu-text.ts';

const QUADS = OUTPUT_COLUMNS / 4;
const SLAB = 16;
const decayAt = (s: string): string => `column_cells[${SLAB * QUADS}u + (${s}) * ${QUADS}u + eq]`;
const stepsAt = (s: string): string => `step_cells[(${s}) * ${CHUNK / 4}u + tq]`;

/** The arrays of what columns give, each (sequences of the group, chunks, CHUNK, columns) from `c.parts` on. */
export const COLUMN_PARTS = 3;

/**
 * With S the state before the chunk and R the gradient of that at its end, of each column:
 * q[t] = after[t] (R b[t]) + sum over s >= t of (c[s] . b[t]) decays(t + 1 .. s) dy[s];
 * dx[t] = d dy[t] + step[t] q[t]; parts: dy[t] before[t] (S c[t]), step[t] x[t] after[t] (R b[t]), x[t] q[t], zeros beyond
 * the sequence's end. An invocation has 4 steps from t0 on of 4 columns: it goes from the last of them on to the chunk's
 * end with the product of the decays on the way; what lies between its own steps is set apart. With `c.perChannel` also the
 * sums of dy x over the chunk. Workgroups: tiles of columns x chunks x sequences.
 */
export const INPUTS_SOURCE = `${TURNED_CELLS}
@compute @workgroup_size(${OUTPUT_INVOCATIONS})
fn scan_inputs(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let e0 = wid.x * ${OUTPUT_COLUMNS}u;
  let eq = lane % ${QUADS}u;
  let tq = lane / ${QUADS}u;
  let column = e0 + 4u * eq;
  let place = wid.z * c.chunks + wid.y;
  let first = wid.y * ${CHUNK}u;
  let count = min(c.length - first, ${CHUNK}u);
  let first_row = (c.firstSequence + wid.z) * c.length + first;
  let coefficients = c.coefficients + place * ${CHUNK}u * c.heads;
  let own = coefficients + 4u * tq * c.heads;
  let heads = heads_of(column);
  // In vectors: from step to step of a part; from part to part it is c.partsSize.
  let parts_next = c.columns / 4u;
  let parts = c.parts + (place * ${CHUNK}u + 4u * tq) * parts_next + column / 4u;
  let states_at = place * (c.stateColumns * c.columns / 4u);
${unrolled(4, (k) => `  var sum${k} = vec4<f32>();\n`)}${unrolled(
  4,
  (k) => `  var x${k} = vec4<f32>();
  var dy${k} = vec4<f32>();
  if (4u * tq + ${k}u < count && column < c.columns) {
    x${k} = live_columns(arena[(c.x + (first_row + 4u * tq + ${k}u) * c.xStride + column) / 4u], column);
    dy${k} = live_columns(arena[(c.dy + (first_row + 4u * tq + ${k}u) * c.dyStride + column) / 4u], column);
  }
`,
)}
  // Once for S and c, once for R and b.
  for (var turn = 0u; turn < 2u; turn++) {
${unrolled(4, (k) => `    sum${k} = vec4<f32>();\n`)}    let rows = select(c.b, c.c, turn == 0u);
    let row_stride = select(c.bStride, c.cStride, turn == 0u);
    let rows_at = rows + first_row * row_stride;
    if (select(wid.y + 1u < c.chunks, wid.y > 0u, turn == 0u)) {
      let states_at = select(c.adjoints, c.states, turn == 0u) + states_at;
${TURNED_PRODUCT}
    }
    if (column < c.columns) {
${unrolled(
  4,
  (k) => `      arena[parts + turn * c.partsSize + ${k}u * parts_next] =
        select(x${k}, dy${k}, turn == 0u) * weight_of(own + ${k}u * c.heads, heads, turn == 0u) * sum${k};
`,
)}    }
  }
  let rest = coefficients_of(own + 3u * c.heads, heads)[3];
${unrolled(4, (k) => `  sum${k} *= rest;\n`)}
  // The decay from each step to the last one of the four, and what the steps before that one add.
${unrolled(3, (k) => `  var factor${k} = vec4<f32>(1.0);\n  var early${k} = vec4<f32>();\n`)}  var decayed = vec4<f32>(1.0);
  for (var s0 = 0u; s0 < count; s0 += ${SLAB}u) {
    {
      let s = s0 + lane / ${QUADS}u;
      var v = vec4<f32>();
      if (s < count && column < c.columns) { v = live_columns(arena[(c.dy + (first_row + s) * c.dyStride + column) / 4u], column); }
      column_cells[lane] = v;
      column_cells[${SLAB * QUADS}u + lane] = coefficients_of(coefficients + s * c.heads, heads)[1];
    }
    for (var i = lane; i < ${(SLAB * CHUNK) / 4}u; i += ${OUTPUT_INVOCATIONS}u) {
      step_cells[i] = arena[c.products + (place * ${CHUNK}u + s0) * ${CHUNK / 4}u + i];
    }
    workgroupBarrier();
    if (4u * tq < s0 + ${SLAB}u) {
      var s = 0u;
      if (4u * tq >= s0) {
        s = 4u * tq - s0;
${unrolled(
  4,
  (k) => `        let g${k} = ${stepsAt(`s + ${k}u`)};
${k > 0 ? `        let decay${k} = ${decayAt(`s + ${k}u`)};\n` : ''}`,
)}        factor2 = decay3;
        factor1 = decay2 * decay3;
        factor0 = decay1 * factor1;
        early0 = g0.x * dy0 + decay1 * (g1.x * dy1 + decay2 * (g2.x * dy2));
        early1 = g1.y * dy1 + decay2 * (g2.y * dy2);
        early2 = g2.z * dy2;
${unrolled(4, (k) => `        sum${k} += g3[${k}] * dy3;\n`)}        s += 4u;
      }
      for (; s < ${SLAB}u; s++) {
        decayed *= ${decayAt('s')};
        let v = decayed * column_cells[s * ${QUADS}u + eq];
        let g = ${stepsAt('s')};
        sum0 += g.x * v;
        sum1 += g.y * v;
        sum2 += g.z * v;
        sum3 += g.w * v;
      }
    }
    workgroupBarrier();
  }
  sum0 = factor0 * sum0 + early0;
  sum1 = factor1 * sum1 + early1;
  sum2 = factor2 * sum2 + early2;
  let channels = columns_of(column);
  let at = select(heads, channels, vec4<bool>(c.skipChannels > 0u));
  let skip = vec4<f32>(d[at.x], d[at.y], d[at.z], d[at.w]);
  if (column < c.columns) {
${unrolled(
  4,
  (k) => `    arena[2u * c.partsSize + parts + ${k}u * parts_next] = x${k} * sum${k};
    if (4u * tq + ${k}u < count) {
      let dx = skip * dy${k} + coefficients_of(own + ${k}u * c.heads, heads)[0] * sum${k};
      arena[(c.dx + (first_row + 4u * tq + ${k}u) * c.dxStride + column) / 4u] = live_columns(dx, column);
    }
`,
)}  }
  if (c.perChannel > 0u) {
    step_cells[lane] = x0 * dy0 + x1 * dy1 + x2 * dy2 + x3 * dy3;
    workgroupBarrier();
    if (tq == 0u && column < c.columns) {
      var sum = vec4<f32>();
      for (var q = 0u; q < ${CHUNK / 4}u; q++) { sum += step_cells[q * ${QUADS}u + eq]; }
      arena[c.skips + (((c.firstSequence + wid.z) * c.chunks + wid.y) * c.columns + column) / 4u] = sum;
    }
  }
}
`;
