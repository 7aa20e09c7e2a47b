/** WGSL of the scan's outputs from the states before the chunks. */

import { CHUNK } from './webgpu-parts.ts';
import { unrolled } from '../webgpu-text.ts';

export const OUTPUT_INVOCATIONS = 128;
/** Columns of a workgroup. */
export const OUTPUT_COLUMNS = 32;
const QUADS = OUTPUT_COLUMNS / 4;
/** Steps that lie in workgroup memory at a time. */
const SLAB = 16;
/** Vectors of a row of 64 steps in workgroup memory, one more than there are: other banks for other rows. */
const ROW = CHUNK / 4 + 1;

/** State columns in workgroup memory at a time, or half of them. */
const STATE_SLAB = 32;

/** Workgroup memory of `TURNED_PRODUCT`. */
export const TURNED_CELLS = `
var<workgroup> step_cells: array<vec4<f32>, ${STATE_SLAB * ROW}>;
var<workgroup> column_cells: array<vec4<f32>, ${STATE_SLAB * QUADS}>;
`;

/**
 * Statements that make sum0 ... sum3 (steps 4 tq ... 4 tq + 3, columns e0 + 4 eq ...) the product of the chunk's rows of an
 * operand, `rows_at` + t `row_stride` (floats), with the states at `states_at` (vectors): sum over n of row[t][n] state[n][e].
 */
export const TURNED_PRODUCT = `
    for (var n0 = 0u; n0 < c.stateColumns; n0 += ${STATE_SLAB}u) {
      let slab = min(${STATE_SLAB}u, c.stateColumns - n0);
      for (var i = lane; i < 4u * slab; i += ${OUTPUT_INVOCATIONS}u) {
        // 4 steps x 4 state columns, turned: steps side by side.
        let q = (i >> 1u) & 15u;
        let n = (i & 1u) | ((i >> 5u) << 1u);
        var m = mat4x4<f32>();
${unrolled(
  4,
  (
    k,
  ) => `        if (first + 4u * q + ${k}u < c.length) { m[${k}] = state_columns(rows_at + (4u * q + ${k}u) * row_stride, n0 + 4u * n); }
`,
)}        m = transpose(m);
${unrolled(4, (k) => `        step_cells[(4u * n + ${k}u) * ${ROW}u + q] = m[${k}];\n`)}      }
      for (var i = lane; i < slab * ${QUADS}u; i += ${OUTPUT_INVOCATIONS}u) {
        let column = e0 + 4u * (i % ${QUADS}u);
        var v = vec4<f32>();
        if (column < c.columns) { v = arena[states_at + ((n0 + i / ${QUADS}u) * c.columns + column) / 4u]; }
        column_cells[i] = v;
      }
      workgroupBarrier();
      for (var n1 = 0u; n1 < slab; n1 += 16u) {
        for (var n = n1; n < n1 + 16u; n++) {
          let r = step_cells[n * ${ROW}u + tq];
          let s = column_cells[n * ${QUADS}u + eq];
          sum0 += r.x * s;
          sum1 += r.y * s;
          sum2 += r.z * s;
          sum3 += r.w * s;
        }
      }
      workgroupBarrier();
    }`;

/**
 * y[t] = d x[t] + before[t] (state c[t]) + sum over s <= t of (b[s] . c[t]) decays(s + 1 .. t) step[s] x[s], by column, 0 for
 * steps that are not real. An invocation has 4 steps from t0 on of 4 columns: it goes from s = t0 back to the chunk's start with the product of the
 * decays on the way; what lies between t0 and its later steps is set apart. Workgroups: tiles of columns x chunks x
 * sequences.
 */
export const OUTPUTS_SOURCE = `${TURNED_CELLS}
@compute @workgroup_size(${OUTPUT_INVOCATIONS})
fn scan_outputs(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let e0 = wid.x * ${OUTPUT_COLUMNS}u;
  let eq = lane % ${QUADS}u;
  let tq = lane / ${QUADS}u;
  let column = e0 + 4u * eq;
  let place = wid.z * c.chunks + wid.y;
  let first = wid.y * ${CHUNK}u;
  let sequence_row = (c.firstSequence + wid.z) * c.length;
  let coefficients = c.coefficients + place * ${CHUNK}u * c.heads;
  let heads = heads_of(column);
${unrolled(4, (k) => `  var sum${k} = vec4<f32>();\n`)}
  if (wid.y > 0u || c.carried > 0u) {
    let rows_at = c.c + (sequence_row + first) * c.cStride;
    let row_stride = c.cStride;
    let states_at = c.states + place * (c.stateColumns * c.columns / 4u);
${TURNED_PRODUCT}
    let factor = coefficients_of(coefficients + 4u * tq * c.heads, heads)[2];
${unrolled(4, (k) => `    sum${k} *= factor;\n`)}  }

  let count = min(c.length - first, ${CHUNK}u);
  // The decay from t0 to each later step, and what steps after t0 add.
${unrolled(3, (k) => `  var factor${k + 1} = vec4<f32>(1.0);\n  var late${k + 1} = vec4<f32>();\n`)}
  var decayed = vec4<f32>(1.0);
  for (var slabs = (count + ${SLAB - 1}u) / ${SLAB}u; slabs > 0u; slabs--) {
    let s0 = (slabs - 1u) * ${SLAB}u;
    {
      let s = s0 + lane / ${QUADS}u;
      let m = coefficients_of(coefficients + s * c.heads, heads);
      var x = vec4<f32>();
      if (s < count && column < c.columns) {
        x = m[0] * arena[(c.x + (sequence_row + first + s) * c.xStride + column) / 4u];
      }
      column_cells[lane] = x;
      column_cells[${SLAB * QUADS}u + lane] = m[1];
    }
    for (var i = lane; i < ${(SLAB * CHUNK) / 4}u; i += ${OUTPUT_INVOCATIONS}u) {
      step_cells[i] = arena[c.products + (place * ${CHUNK}u + s0) * ${CHUNK / 4}u + i];
    }
    workgroupBarrier();
    if (4u * tq >= s0) {
      var s = 4u * tq - s0;
      if (s < ${SLAB}u) {
${unrolled(
  3,
  (k) => `        let x${k + 1} = column_cells[(s + ${k + 1}u) * ${QUADS}u + eq];
        let decay${k + 1} = column_cells[${SLAB * QUADS}u + (s + ${k + 1}u) * ${QUADS}u + eq];
        let g${k + 1} = step_cells[(s + ${k + 1}u) * ${CHUNK / 4}u + tq];
`,
)}        factor1 = decay1;
        factor2 = decay1 * decay2;
        factor3 = factor2 * decay3;
        late1 = g1.y * x1;
        late2 = g2.z * x2 + decay2 * (g1.z * x1);
        late3 = g3.w * x3 + decay3 * (g2.w * x2 + decay2 * (g1.w * x1));
      } else {
        s = ${SLAB - 1}u;
      }
      for (var left = s + 1u; left > 0u; left--) {
        let at = (left - 1u) * ${QUADS}u + eq;
        let x = decayed * column_cells[at];
        let g = step_cells[(left - 1u) * ${CHUNK / 4}u + tq];
        sum0 += g.x * x;
        sum1 += g.y * x;
        sum2 += g.z * x;
        sum3 += g.w * x;
        decayed *= column_cells[${SLAB * QUADS}u + at];
      }
    }
    workgroupBarrier();
  }
  if (column >= c.columns) { return; }
  let channels = columns_of(column);
  let at = select(heads, channels, vec4<bool>(c.skipChannels > 0u));
  let skip = vec4<f32>(d[at.x], d[at.y], d[at.z], d[at.w]);
  sum1 = factor1 * sum1 + late1;
  sum2 = factor2 * sum2 + late2;
  sum3 = factor3 * sum3 + late3;
  let row = sequence_row + first + 4u * tq;
  let real = real_steps(c.firstSequence + wid.z);
${unrolled(
  4,
  (k) => `  if (4u * tq + ${k}u < count) {
    let x = arena[(c.x + (row + ${k}u) * c.xStride + column) / 4u];
    arena[(c.y + (row + ${k}u) * c.yStride + column) / 4u] = select(vec4<f32>(), live_columns(skip * x + sum${k}, column), first + 4u * tq + ${k}u < real);
  }
`,
)}}
`;
