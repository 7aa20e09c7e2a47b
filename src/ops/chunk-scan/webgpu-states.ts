/** WGSL of the states of chunks: what each adds to the state, and passing that on from chunk to chunk. */

import { CHUNK } from './webgpu-parts.ts';
import { unrolled } from '../webgpu-text.ts';

const STATES_INVOCATIONS = 128;
const SLAB = 16;
/** Columns times state columns of a workgroup. */
const TILE = 16 * STATES_INVOCATIONS;

/** State columns of a workgroup: as many as there are, up to 64; the fewer, the more columns. */
export function stateTile(stateColumns: number): { columns: number; stateColumns: number } {
  const tile = stateColumns > 32 ? 64 : stateColumns > 16 ? 32 : 16;
  return { columns: TILE / tile, stateColumns: tile };
}

/**
 * states[n][e] = sum over the chunk's steps t of weight[t] x[t][e] b[t][n], the weight being that of e's head at t: for the
 * state at the chunk's end or, with `c.backwards` and dy and c for x and b, for the gradient of that at its start. An
 * invocation has 4 x 4 of them. A workgroup has 4 << `c.shift` columns. Workgroups: tiles of e, tiles of n within these x
 * chunks x sequences.
 */
export const CHUNK_STATES_SOURCE = `
var<workgroup> x_cells: array<vec4<f32>, ${(SLAB * TILE) / 16 / 4}>;
var<workgroup> b_cells: array<vec4<f32>, ${(SLAB * 64) / 4}>;
@compute @workgroup_size(${STATES_INVOCATIONS})
fn scan_chunk_states(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  // Vectors of the tile: in columns, in state columns.
  let quads = 1u << c.shift;
  let state_shift = ${Math.log2(STATES_INVOCATIONS)}u - c.shift;
  let state_quads = 1u << state_shift;
  let e0 = (wid.x / c.stateTiles) * 4u * quads;
  let n0 = (wid.x % c.stateTiles) * 4u * state_quads;
  let chunk = wid.y + c.firstChunk;
  let first = chunk * ${CHUNK}u;
  let sequence_row = (c.firstSequence + wid.z) * c.length;
  let coefficients = c.coefficients + (wid.z * c.chunks + chunk) * ${CHUNK}u * c.heads;
  let eq = lane & (quads - 1u);
  let nq = lane >> c.shift;
${unrolled(4, (k) => `  var sum${k} = vec4<f32>();\n`)}
  for (var t0 = 0u; t0 < ${CHUNK}u && first + t0 < c.length; t0 += ${SLAB}u) {
    for (var i = lane; i < ${SLAB}u * quads; i += ${STATES_INVOCATIONS}u) {
      let t = first + t0 + (i >> c.shift);
      let column = e0 + 4u * (i & (quads - 1u));
      var v = vec4<f32>();
      if (t < c.length && column < c.columns) {
        v = arena[(c.x + (sequence_row + t) * c.xStride + column) / 4u];
        v *= weight_of(coefficients + (t - first) * c.heads, heads_of(column), c.backwards > 0u);
      }
      x_cells[i] = v;
    }
    for (var i = lane; i < ${SLAB}u * state_quads; i += ${STATES_INVOCATIONS}u) {
      let t = first + t0 + (i >> state_shift);
      let n = n0 + 4u * (i & (state_quads - 1u));
      var v = vec4<f32>();
      if (t < c.length && n < c.stateColumns) { v = state_columns(c.b + (sequence_row + t) * c.bStride, n); }
      b_cells[i] = v;
    }
    workgroupBarrier();
    for (var t = 0u; t < ${SLAB}u; t++) {
      let x = x_cells[(t << c.shift) + eq];
      let b = b_cells[(t << state_shift) + nq];
      sum0 += b.x * x;
      sum1 += b.y * x;
      sum2 += b.z * x;
      sum3 += b.w * x;
    }
    workgroupBarrier();
  }
  let n = n0 + 4u * nq;
  let e = e0 + 4u * eq;
  if (n >= c.stateColumns || e >= c.columns) { return; }
  let to = c.states + (((wid.z * c.chunks + chunk) * c.stateColumns + n) * c.columns + e) / 4u;
  let next = c.columns / 4u;
  arena[to] = sum0;
  arena[to + next] = sum1;
  arena[to + 2u * next] = sum2;
  arena[to + 3u * next] = sum3;
}
`;

/** Chunks that are loaded before the first of them is used. */
const AHEAD = 4;

/**
 * states[chunk] becomes the state before the chunk: s[0] the one kept in the slot, or 0; s[k + 1] = s[k] total[k] + what
 * chunk k adds; the last is kept. Backwards, the gradient of the state at a chunk's end: the same from the last chunk to the
 * first. An invocation has 4 columns x 4 state columns; with `whole` rows of the kept state are read as vectors. Workgroups: those of 64 x sequences.
 */
export function passStatesSource(carried: boolean, backwards: boolean, whole: boolean): string {
  const rows = ['x', 'y', 'z', 'w'];
  const slotRow = (r: number): string => `slot + min(e + ${r}u, c.width - 1u) * c.dState + n`;
  const read = (r: number): string => (whole ? `states[(${slotRow(r)}) / 4u]` : `slot_row(${slotRow(r)}, n)`);
  const write = (r: number, v: string): string =>
    whole
      ? `states[(${slotRow(r)}) / 4u] = ${v};`
      : `for (var j = 0u; n + j < c.dState && j < 4u; j++) { states[${slotRow(r)} + j] = ${v}[j]; }`;
  return `
${
  carried && !whole
    ? `fn slot_row(at: u32, n: u32) -> vec4<f32> {
  var v = vec4<f32>();
  for (var j = 0u; n + j < c.dState && j < 4u; j++) { v[j] = states[at + j]; }
  return v;
}`
    : ''
}
@compute @workgroup_size(64)
fn scan_pass_states(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let id = wid.x * 64u + lane;
  // Neighbours have neighbouring columns.
  let e = 4u * (id % (c.columns / 4u));
  let n = 4u * (id / (c.columns / 4u));
  if (n >= c.stateColumns) { return; }
  let heads = heads_of(e);
  let next = c.columns / 4u;
${
  carried
    ? `  let slot = bitcast<u32>(component(c.slots + c.firstSequence + wid.y)) * 64u + c.state;
  var m = mat4x4<f32>();
  if (n < c.dState && e < c.width) { m = transpose(mat4x4<f32>(${rows.map((_, r) => read(r)).join(', ')})); }
${unrolled(4, (k) => `  var s${k} = m[${k}];\n`)}`
    : unrolled(4, (k) => `  var s${k} = vec4<f32>();\n`)
}
  for (var first = 0u; first < c.chunks; first += ${AHEAD}u) {
${unrolled(
  AHEAD,
  (
    a,
  ) => `    let chunk${a} = wid.y * c.chunks + ${backwards ? `c.chunks - 1u - min(first + ${a}u, c.chunks - 1u)` : `min(first + ${a}u, c.chunks - 1u)`};
    let at${a} = c.states + ((chunk${a} * c.stateColumns + n) * c.columns + e) / 4u;
    let total${a} = coefficients_of(c.coefficients + (chunk${a} * ${CHUNK}u + ${CHUNK - 1}u) * c.heads, heads)[2];
${unrolled(4, (k) => `    let add${a}_${k} = arena[at${a} + ${k}u * next];\n`)}`,
)}
${unrolled(
  AHEAD,
  (a) => `    if (first + ${a}u < c.chunks) {
${unrolled(4, (k) => `      arena[at${a} + ${k}u * next] = s${k};\n      s${k} = s${k} * total${a} + add${a}_${k};\n`)}    }
`,
)}
  }
${
  carried
    ? `  if (n >= c.dState) { return; }
  m = transpose(mat4x4<f32>(s0, s1, s2, s3));
${rows.map((_, r) => `  if (e + ${r}u < c.width) { ${write(r, `m[${r}]`)} }\n`).join('')}`
    : ''
}}
`;
}
