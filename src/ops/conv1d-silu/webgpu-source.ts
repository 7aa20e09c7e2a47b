/** WGSL of the causal convolution with SiLU: sequences, and single steps. */

import { unrolled } from '../webgpu-text.ts';

/**
 * x, y: (batch, length, columns); the window, (TAPS - 1, channels), in a slot of the states. An invocation has 4 columns
 * of `steps` steps of a sequence and loads all of them before it uses the first. The one that has the sequence's first
 * steps is alone in reading the window, and it writes the new one.
 */
export function sequenceSource(taps: number, steps: number, carried: boolean): string {
  const back = taps - 1;
  // x<i> is step t0 - back + i.
  const fromWindow = `
  if (t0 == 0u) {
    let state = slot * 64u + c.state + place.channel;${unrolled(
      back,
      (k) => `
    for (var j = 0u; j < min(place.live, 4u); j++) { x${k}[j] = states[state + ${k}u * c.channels + j]; }`,
    )}
    // Row k comes from a later row of the window or from x: going up in k overwrites nothing that is needed.
    for (var k = 0u; k < ${back}u && real > 0u; k++) {
      let source = k + real;
      for (var j = 0u; j < min(place.live, 4u); j++) {
        var value: f32;
        if (source >= ${back}u) { value = arena[x_at + (source - ${back}u) * c.xStride / 4u][j]; }
        else { value = states[state + source * c.channels + j]; }
        states[state + k * c.channels + j] = value;
      }
    }
  }`;
  return `
@compute @workgroup_size(128)
fn conv1d_silu(${INVOCATION}) {
  let id = folded(wid, count) * 128u + lane;
  let sequence_piece = id / c.vectors;
  let column = (id - sequence_piece * c.vectors) * 4u;
  let b = sequence_piece / c.pieces;
  let t0 = (sequence_piece - b * c.pieces) * ${steps}u;
  if (b >= c.batch) { return; }
  let place = place_of(column);
  let x_at = (c.x + b * c.length * c.xStride + column) / 4u;
  let y_at = (c.y + b * c.length * c.yStride + column) / 4u;
${carried ? LENGTHS : ''}
${unrolled(
  back,
  (k) => `
  var x${k} = vec4<f32>();
  if (t0 + ${k}u >= ${back}u) { x${k} = arena[x_at + (t0 + ${k}u - ${back}u) * c.xStride / 4u]; }`,
)}${unrolled(
    steps,
    (i) => `
  let x${back + i} = arena[x_at + min(t0 + ${i}u, c.length - 1u) * c.xStride / 4u];`,
  )}
  let m = matrix_of(place);
  let offset = bias_of(place);${carried ? fromWindow : ''}
${unrolled(steps, (i) => {
  const sum = Array.from({ length: taps }, (_, k) => ` + m[${4 - taps + k}] * x${i + k}`).join('');
  return `
  if (t0 + ${i}u < c.length) {
    let sum = offset${sum};
    arena[y_at + (t0 + ${i}u) * c.yStride / 4u] = live_of(sum * sigmoid(sum), place);
  }`;
})}
}
`;
}

const INVOCATION = `@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) lane: u32`;

/** What an invocation that carries a window knows of its sequence. */
const LENGTHS = `
  let slot = bitcast<u32>(arena[(c.slots + b) / 4u][(c.slots + b) % 4u]);
  var real = c.length;
  if (c.ragged > 0u) { real = bitcast<u32>(arena[(c.lengths + b) / 4u][(c.lengths + b) % 4u]); }`;

/** The same for one step; x, y: (batch, columns), the arena as floats. An invocation has one column, and its window. */
export function stepSource(taps: number, carried: boolean): string {
  const back = taps - 1;
  return `
@compute @workgroup_size(64)
fn conv1d_silu_step(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let column = wid.x * 64u + lane;
  let b = wid.y;
  if (column >= 4u * c.vectors) { return; }
  let place = place_of(column);
  let to = c.y + b * c.yStride + column;
  if (place.live == 0u) {
    arena[to] = 0.0;
    return;
  }
  let w = taps_of(place.channel);
  let now = arena[c.x + b * c.xStride + column];
  var sum = 0.0;
  if (HAS_BIAS) { sum = bias[place.channel]; }
${
  carried
    ? `
  let state = bitcast<u32>(arena[c.slots + b]) * 64u + c.state + place.channel;
  var real = true;
  if (c.ragged > 0u) { real = bitcast<u32>(arena[c.lengths + b]) > 0u; }${unrolled(
    back,
    (k) => `
  let x${k} = states[state + ${k}u * c.channels];`,
  )}
  sum += ${unrolled(back, (k) => `w[${4 - taps + k}] * x${k}`, ' + ')};
  if (real) {${unrolled(
    back,
    (k) => `
    states[state + ${k}u * c.channels] = ${k + 1 < back ? `x${k + 1}` : 'now'};`,
  )}
  }`
    : ''
}
  sum += w[3] * now;
  arena[to] = sum * sigmoid(vec4<f32>(sum)).x;
}
`;
}
