/** WGSL of the gradients of the scan's b and c, which all heads share. */

import { CHUNK } from '../chunk-scan/webgpu-parts.ts';
import { unrolled } from '../webgpu-text.ts';

const INVOCATIONS = 128;
const SLAB = 16;
/** State columns of a workgroup. */
export const SHARED_COLUMNS = 32;
const QUADS = SHARED_COLUMNS / 4;
const ROW = CHUNK / 4 + 1;

/** The inner product of the slab: steps side by side times state columns side by side. */
const PRODUCT = `
    workgroupBarrier();
    for (var i = 0u; i < ${SLAB}u; i++) {
      let r = step_cells[i * ${ROW}u + tq];
      let s = column_cells[i * ${QUADS}u + nq];
      sum0 += r.x * s;
      sum1 += r.y * s;
      sum2 += r.z * s;
      sum3 += r.w * s;
    }
    workgroupBarrier();`;

/**
 * With S the state before the chunk, R the gradient of that at its end:
 * dc[t] = sum over s of weights[t][s] b[s] + sum over e of start_weight[t] dy[t][e] S[e];
 * db[t] = sum over s of weights[s][t] c[s] + sum over e of end_weight[t] x[t][e] R[e].
 * An invocation has 4 steps x 4 state columns. Workgroups: tiles of the columns of dc, then those of db x chunks x sequences.
 */
export const SHARED_SOURCE = `
var<workgroup> step_cells: array<vec4<f32>, ${SLAB * ROW}>;
var<workgroup> column_cells: array<vec4<f32>, ${SLAB * QUADS}>;

@compute @workgroup_size(${INVOCATIONS})
fn scan_shared(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let of_b = wid.x >= c.tiles;
  let n0 = (wid.x % c.tiles) * ${SHARED_COLUMNS}u;
  let place = wid.z * c.chunks + wid.y;
  let first = wid.y * ${CHUNK}u;
  let count = min(c.length - first, ${CHUNK}u);
  let first_row = (c.firstSequence + wid.z) * c.length + first;
  let coefficients = c.coefficients + place * ${CHUNK}u * c.heads;
  let nq = lane % ${QUADS}u;
  let tq = lane / ${QUADS}u;
${unrolled(4, (k) => `  var sum${k} = vec4<f32>();\n`)}
  let other_stride = select(c.bStride, c.cStride, of_b);
  let other_at = select(c.b, c.c, of_b) + first_row * other_stride;
  for (var s0 = 0u; s0 < count; s0 += ${SLAB}u) {
    {
      let n = n0 + 4u * (lane % ${QUADS}u);
      let s = s0 + lane / ${QUADS}u;
      var v = vec4<f32>();
      if (s < count && n < c.stateColumns) { v = state_columns(other_at + s * other_stride, n); }
      column_cells[lane] = v;
    }
    if (lane < 64u) {
      // 4 x 4 weights: for dc rows are steps t, turned; for db rows are steps s.
      let q = lane / 4u;
      let s = lane % 4u;
      var m = mat4x4<f32>();
      let at = c.weights + place * c.groups * ${(CHUNK * CHUNK) / 4}u
        + select((4u * q) * ${CHUNK / 4}u + s0 / 4u + s, (s0 + 4u * s) * ${CHUNK / 4}u + q, of_b);
      for (var group = 0u; group < c.groups; group++) {
        let from_at = at + group * ${(CHUNK * CHUNK) / 4}u;
        m += mat4x4<f32>(arena[from_at], arena[from_at + ${CHUNK / 4}u], arena[from_at + ${CHUNK / 2}u], arena[from_at + ${(3 * CHUNK) / 4}u]);
      }
      if (!of_b) { m = transpose(m); }
${unrolled(4, (k) => `      step_cells[(4u * s + ${k}u) * ${ROW}u + q] = m[${k}];\n`)}    }${PRODUCT}
  }

  if (select(wid.y > 0u, wid.y + 1u < c.chunks, of_b)) {
    let rows_stride = select(c.dyStride, c.xStride, of_b);
    let rows_at = select(c.dy, c.x, of_b) + first_row * rows_stride;
    let states_at = select(c.states, c.adjoints, of_b) + place * (c.stateColumns * c.columns / 4u);
    for (var e0 = 0u; e0 < c.columns; e0 += ${SLAB}u) {
      if (lane < 64u) {
        let q = lane / 4u;
        let e = lane % 4u;
        let column = e0 + 4u * e;
        let heads = heads_of(column);
        var m = mat4x4<f32>();
${unrolled(
  4,
  (k) => `        if (4u * q + ${k}u < count) {
          let weight = weight_of(coefficients + (4u * q + ${k}u) * c.heads, heads, !of_b);
          m[${k}] = live_columns(weight * arena[(rows_at + (4u * q + ${k}u) * rows_stride + column) / 4u], column);
        }
`,
)}        m = transpose(m);
${unrolled(4, (k) => `        step_cells[(4u * e + ${k}u) * ${ROW}u + q] = m[${k}];\n`)}      } else if (lane < ${64 + (SLAB / 4) * QUADS}u) {
        let e = (lane - 64u) % 4u;
        let q = (lane - 64u) / 4u;
        var m = mat4x4<f32>();
        if (n0 + 4u * q < c.stateColumns) {
          let at = states_at + ((n0 + 4u * q) * c.columns + e0) / 4u + e;
          let next = c.columns / 4u;
          m = transpose(mat4x4<f32>(arena[at], arena[at + next], arena[at + 2u * next], arena[at + 3u * next]));
        }
${unrolled(4, (k) => `        column_cells[(4u * e + ${k}u) * ${QUADS}u + q] = m[${k}];\n`)}      }${PRODUCT}
    }
  }
  let n = n0 + 4u * nq;
  if (n >= c.stateColumns) { return; }
  let to_stride = select(c.dcStride, c.dbStride, of_b);
  let to = select(c.dc, c.db, of_b) + first_row * to_stride + n;
${unrolled(4, (k) => `  if (4u * tq + ${k}u < count) { arena[(to + (4u * tq + ${k}u) * to_stride) / 4u] = sum${k}; }\n`)}}
`;
