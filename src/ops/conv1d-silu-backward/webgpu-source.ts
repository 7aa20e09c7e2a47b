/** WGSL of the convolution's gradient. */

import { unrolled } from '../webgpu-text.ts';

/** A workgroup has so many vectors of 4 columns and, of each, so many pieces of sequences. */
export const GROUP_VECTORS = 16;
export const GROUP_PIECES = 8;
const INVOCATIONS = GROUP_VECTORS * GROUP_PIECES;

/**
 * With pre[t] = bias + sum_k w[k] x[t - TAPS + 1 + k], g[t] = dy[t] silu'(pre[t]): dx[u] = sum_k w[k] g[u + TAPS - 1 - k],
 * and sums of g[t] x[t - TAPS + 1 + k] and g[t]. x, dy, dx: (batch, length, columns); partial sums: (workgroups' second
 * dimension, TAPS + 1, columns). An invocation has 4 columns of a piece of a sequence; it makes g to TAPS - 1 steps beyond
 * the piece's end, for its dx.
 */
export function backwardSource(taps: number, trained: boolean): string {
  const back = taps - 1;
  const w = (k: number): string => `m[${4 - taps + k}]`;
  const inputs = (k: number): string => (k < back ? `x${k}` : 'now');
  const sums = unrolled(back, (k) => `${w(k)} * x${k} + `);
  const slopes = unrolled(back, (k) => ` + ${w(k + 1)} * g${back - 1 - k}`);
  const shift = (name: string, last: string): string =>
    unrolled(
      back,
      (k) => `
    ${name}${k} = ${k + 1 < back ? `${name}${k + 1}` : last};`,
    );
  return `
${trained ? `var<workgroup> cells: array<vec4<f32>, ${(taps + 1) * INVOCATIONS}>;` : ''}
@compute @workgroup_size(${INVOCATIONS})
fn conv1d_silu_backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let vector = wid.x * ${GROUP_VECTORS}u + lane % ${GROUP_VECTORS}u;
  let piece = wid.y * ${GROUP_PIECES}u + lane / ${GROUP_VECTORS}u;
  let b = piece / c.pieces;
  let t0 = (piece - b * c.pieces) * c.steps;
  let present = vector < c.vectors && b < c.batch;
  let end = select(t0, min(t0 + c.steps, c.length), present);
  let reach = select(t0, end + ${back}u, present);
  let column = 4u * vector;
  let x_at = (c.x + b * c.length * c.xStride + column) / 4u;
  let dy_at = (c.dy + b * c.length * c.dyStride + column) / 4u;
  let dx_at = (c.dx + b * c.length * c.dxStride + column) / 4u;
  var place = place_of(column);
  if (!present) { place.live = 0u; }
  let m = matrix_of(place);
  let offset = bias_of(place);
${unrolled(
  back,
  (k) => `
  var x${k} = vec4<f32>();
  if (present && t0 + ${k}u >= ${back}u) { x${k} = arena[x_at + (t0 + ${k}u - ${back}u) * c.xStride / 4u]; }
  var g${k} = vec4<f32>();`,
)}
${trained ? unrolled(taps + 1, (k) => `  var sum${k} = vec4<f32>();\n`) : ''}
  for (var t = t0; t < reach; t++) {
    var now = vec4<f32>();
    var g = vec4<f32>();
    if (t < c.length) {
      now = arena[x_at + t * c.xStride / 4u];
      g = arena[dy_at + t * c.dyStride / 4u];
    }
    let pre = offset + ${sums}${w(back)} * now;
    let s = sigmoid(pre);
    g *= s * (1.0 + pre * (1.0 - s));
${
  trained
    ? `    if (t < end) {${unrolled(
        taps,
        (k) => `
      sum${k} += g * ${inputs(k)};`,
      )}
      sum${taps} += g;
    }
`
    : ''
}    let dx = ${w(0)} * g${slopes};
    if (t >= t0 + ${back}u) { arena[dx_at + (t - ${back}u) * c.dxStride / 4u] = live_of(dx, place); }${shift('x', 'now')}${shift('g', 'g')}
  }
${
  trained
    ? `${unrolled(taps + 1, (k) => `  cells[${k * INVOCATIONS}u + lane] = live_of(sum${k}, place);\n`)}  workgroupBarrier();
  for (var i = lane; i < ${(taps + 1) * GROUP_VECTORS}u; i += ${INVOCATIONS}u) {
    let k = i / ${GROUP_VECTORS}u;
    let own = i % ${GROUP_VECTORS}u;
    let to = wid.x * ${GROUP_VECTORS}u + own;
    var sum = vec4<f32>();
    for (var p = 0u; p < ${GROUP_PIECES}u; p++) { sum += cells[k * ${INVOCATIONS}u + p * ${GROUP_VECTORS}u + own]; }
    if (to < c.vectors) { arena[c.partials + (wid.y * ${taps + 1}u + k) * c.vectors + to] = sum; }
  }
`
    : ''
}}
`;
}

/** Vectors of a workgroup that sums, and its parts of the rows of each. */
export const SUM_VECTORS = 8;
const SUM_PARTS = 32;

/**
 * goal[channel, k] += the sum of partial sums over c.rows rows, (TAPS + 1, columns) each, whose sum c.first + k it is; the
 * second dimension of the workgroups is k, a channel has c.goalStride of them.
 */
export const SUMS_SOURCE = `
var<workgroup> cells: array<vec4<f32>, ${SUM_VECTORS * SUM_PARTS}>;
@compute @workgroup_size(${SUM_VECTORS * SUM_PARTS})
fn conv1d_silu_backward_sums(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let vector = wid.x * ${SUM_VECTORS}u + lane % ${SUM_VECTORS}u;
  let live = vector < c.vectors;
  var sum = vec4<f32>();
  if (live) {
    for (var row = lane / ${SUM_VECTORS}u; row < c.rows; row += ${SUM_PARTS}u) {
      sum += arena[c.partials + (row * c.sums + c.first + wid.y) * c.vectors + vector];
    }
  }
  cells[lane] = sum;
  workgroupBarrier();
  if (lane >= ${SUM_VECTORS}u || !live) { return; }
  for (var part = 1u; part < ${SUM_PARTS}u; part++) { sum += cells[part * ${SUM_VECTORS}u + lane]; }
  let place = place_of(4u * vector);
  for (var j = 0u; j < min(place.live, 4u); j++) { goal[(place.channel + j) * c.goalStride + wid.y] += sum[j]; }
}
`;
