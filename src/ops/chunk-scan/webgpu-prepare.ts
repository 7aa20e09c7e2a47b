/** WGSL of what the kernels over chunks read: coefficients of steps and heads, and the products of b and c. */

import { CHUNK } from './webgpu-parts.ts';

/** Heads of a workgroup, and the blocks of products of a chunk: those of two halves of its steps that are needed. */
export const PREPARED_HEADS = 16;
export const PRODUCT_BLOCKS = 3;
const STEP_GROUPS = 16;
const SLAB = 32;

/**
 * Coefficients, (sequences of the group, chunks, CHUNK, heads) vectors: x the step dt, y its decay, z the product of the
 * decays from the chunk's first step to this one, w that of the decays after this one. Steps beyond a sequence's
 * end have dt = 0 and decay 1.
 *
 * Products, (sequences, chunks, CHUNK, CHUNK): `[i][j]` is row[i] . column[j], where i >= j, or i <= j for `c.upper`, and
 * in what else the halves of the chunk cover; `row` and `column` are b and c or the other way round.
 *
 * Workgroups: `c.headGroups` of heads and `PRODUCT_BLOCKS` x chunks x sequences.
 */
export const PREPARE_SOURCE = `
var<workgroup> factors: array<f32, ${PREPARED_HEADS * STEP_GROUPS}>;
var<workgroup> row_cells: array<vec4<f32>, ${(32 * SLAB) / 4}>;
var<workgroup> column_cells: array<vec4<f32>, ${(32 * SLAB) / 4}>;

@compute @workgroup_size(256)
fn scan_prepare(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let b = c.firstSequence + wid.z;
  if (wid.x < c.headGroups) {
    coefficients(wid, lane, b);
  } else {
    products(wid, lane, b);
  }
}

fn coefficients(wid: vec3<u32>, lane: u32, b: u32) {
  let head = wid.x * ${PREPARED_HEADS}u + lane % ${PREPARED_HEADS}u;
  let h = min(head, c.heads - 1u);
  let own = lane / ${PREPARED_HEADS}u;
  let t0 = wid.y * ${CHUNK}u + 4u * own;
  let real = min(real_steps(b), c.length);
  let rate = rate_of(aLog[h]);
  let bias = dtBias[h];
  let rows = b * c.length + min(vec4<u32>(t0, t0 + 1u, t0 + 2u, t0 + 3u), vec4<u32>(c.length - 1u));
  let at = vec4<u32>(c.dt + h) + rows * c.dtStride;
  let raw = vec4<f32>(component(at.x), component(at.y), component(at.z), component(at.w)) + bias;
  var steps = vec4<f32>(step_of(raw.x), step_of(raw.y), step_of(raw.z), step_of(raw.w));
  steps = select(vec4<f32>(), steps, vec4<u32>(t0, t0 + 1u, t0 + 2u, t0 + 3u) < vec4<u32>(real));
  let decays = vec4<f32>(decay_of(rate, steps.x), decay_of(rate, steps.y), decay_of(rate, steps.z), decay_of(rate, steps.w));
  factors[lane] = decays.x * decays.y * decays.z * decays.w;
  workgroupBarrier();
  var before = 1.0;
  for (var i = 0u; i < own; i++) { before *= factors[i * ${PREPARED_HEADS}u + lane % ${PREPARED_HEADS}u]; }
  var after = 1.0;
  for (var i = ${STEP_GROUPS - 1}u; i > own; i--) { after *= factors[i * ${PREPARED_HEADS}u + lane % ${PREPARED_HEADS}u]; }
  if (head >= c.heads) { return; }
  let to = c.coefficients + ((wid.z * c.chunks + wid.y) * ${CHUNK}u + 4u * own) * c.heads + head;
  let before0 = before * decays.x;
  let before1 = before0 * decays.y;
  let before2 = before1 * decays.z;
  let after2 = after * decays.w;
  let after1 = after2 * decays.z;
  let after0 = after1 * decays.y;
  arena[to] = vec4<f32>(steps.x, decays.x, before0, after0);
  arena[to + c.heads] = vec4<f32>(steps.y, decays.y, before1, after1);
  arena[to + 2u * c.heads] = vec4<f32>(steps.z, decays.z, before2, after2);
  arena[to + 3u * c.heads] = vec4<f32>(steps.w, decays.w, before2 * decays.w, after);
}

fn products(wid: vec3<u32>, lane: u32, b: u32) {
  let block = wid.x - c.headGroups;
  let low = select(0u, 32u, block == 2u);
  let high = select(32u, 0u, block == 0u);
  let i0 = select(high, low, c.upper > 0u);
  let j0 = select(low, high, c.upper > 0u);
  let first = wid.y * ${CHUNK}u;
  // Row i of the block and 4 columns from j on.
  let i = lane / 8u;
  let j = lane % 8u;
  var sums = vec4<f32>();
  for (var n0 = 0u; n0 < c.stateColumns; n0 += ${SLAB}u) {
    let row = first + i0 + i;
    var v = vec4<f32>();
    if (row < c.length && n0 + 4u * j < c.stateColumns) { v = state_columns(c.row + (b * c.length + row) * c.rowStride, n0 + 4u * j); }
    row_cells[lane] = v;
    if (lane < 64u) {
      // 4 steps x 4 state columns, turned: steps side by side.
      let tq = lane / 8u;
      let n = n0 + 4u * j;
      var m = mat4x4<f32>();
      for (var k = 0u; k < 4u; k++) {
        let t = first + j0 + 4u * tq + k;
        if (t < c.length && n < c.stateColumns) { m[k] = state_columns(c.column + (b * c.length + t) * c.columnStride, n); }
      }
      m = transpose(m);
      column_cells[(4u * j) * 8u + tq] = m[0];
      column_cells[(4u * j + 1u) * 8u + tq] = m[1];
      column_cells[(4u * j + 2u) * 8u + tq] = m[2];
      column_cells[(4u * j + 3u) * 8u + tq] = m[3];
    }
    workgroupBarrier();
    for (var q = 0u; q < ${SLAB / 4}u; q++) {
      let r = row_cells[i * ${SLAB / 4}u + q];
      sums += r.x * column_cells[(4u * q) * 8u + j];
      sums += r.y * column_cells[(4u * q + 1u) * 8u + j];
      sums += r.z * column_cells[(4u * q + 2u) * 8u + j];
      sums += r.w * column_cells[(4u * q + 3u) * 8u + j];
    }
    workgroupBarrier();
  }
  arena[c.products + ((wid.z * c.chunks + wid.y) * ${CHUNK}u + i0 + i) * ${CHUNK / 4}u + j0 / 4u + j] = sums;
}
`;
