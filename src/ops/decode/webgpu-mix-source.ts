/**
 * WGSL of the middle of a decoded layer: one step of the convolution and of the scan, and the gate.
 *
 * A workgroup owns a few channels of one sequence. It computes the convolution of its channels and, like every other
 * workgroup of the sequence, of all of B and C; then the lanes of a channel take its row of the state (N numbers) on by a
 * step and read y out of it. The windows of its own channels it moves on itself; those of B and C are still being read by
 * other workgroups, and the next dispatch moves them (`asideSource`).
 */

import { unrolled } from '../webgpu-text.ts';

const INVOCATIONS = 64;
/** Lanes of a channel, neighbours with neighbouring numbers of its row. */
const LANES = 16;
/** Channels of a workgroup. */
export const MIX_CHANNELS = INVOCATIONS / LANES;

/** `slot_of(b)`: where a sequence's state begins; `is_real(b)`: whether its token counts; `window_at`: a channel's oldest input. */
export const DECODE_STATES_SOURCE = (arenaWord: (at: string) => string): string => `
fn slot_of(b: u32) -> u32 { return bitcast<u32>(${arenaWord('c.slots + b')}) * 64u; }
fn is_real(b: u32) -> bool {
  if (c.ragged == 0u) { return true; }
  return bitcast<u32>(${arenaWord('c.lengths + b')}) > 0u;
}
fn window_at(b: u32, channel: u32) -> u32 { return slot_of(b) + c.window + channel; }
fn move_window(at: u32, now: f32) {
  states[at] = states[at + c.channels];
  states[at + c.channels] = states[at + 2u * c.channels];
  states[at + 2u * c.channels] = now;
}
/* Of B and C, 2 N in all, the i-th: its column in the rows of in_proj, its channel. */
fn column_of(i: u32, dState: u32) -> u32 { return select(c.column1 + i, c.column2 + i - dState, i >= dState); }
fn channel_of(i: u32, dState: u32) -> u32 { return select(c.start1 + i, c.start2 + i - dState, i >= dState); }
`;

/** The windows of B and C, of all sequences, by one workgroup of `block` lanes; the arena is one of vectors. */
export function asideSource(dState: number, block: number): string {
  return `${DECODE_STATES_SOURCE((at) => `arena[(${at}) / 4u][(${at}) % 4u]`)}
fn aside(lane: u32) {
  for (var b = 0u; b < c.batch; b++) {
    if (!is_real(b)) { continue; }
    for (var i = lane; i < ${2 * dState}u; i += ${block}u) {
      let at = c.projected + b * c.projectedStride + column_of(i, ${dState}u);
      move_window(window_at(b, channel_of(i, ${dState}u)), arena[at / 4u][at % 4u]);
    }
  }
}
`;
}

/** Arena and states as floats. GATED: y is multiplied by silu(z). Needs `STEP_SOURCE` and `SIGMOID_SOURCE`. */
export function mixSource(dState: number, hasBias: boolean, gated: boolean): string {
  const own = Math.ceil(dState / LANES);
  const inside = (i: number): string => ((i + 1) * LANES <= dState ? '(live)' : `(live && part + ${i * LANES}u < ${dState}u)`);
  return `${DECODE_STATES_SOURCE((at) => `arena[${at}]`)}
var<workgroup> bc: array<f32, ${2 * dState}>;
var<workgroup> x_cells: array<f32, ${MIX_CHANNELS}>;
var<workgroup> cells: array<f32, ${INVOCATIONS}>;

fn silu(v: f32) -> f32 { return v * sigmoid(vec4<f32>(v)).x; }
fn convolved(at: u32, channel: u32, now: f32) -> f32 {
  let w = taps[channel];
  let sum = ${hasBias ? 'bias[channel]' : '0.0'} + w.x * states[at] + w.y * states[at + c.channels] + w.z * states[at + 2u * c.channels] + w.w * now;
  return silu(sum);
}

@compute @workgroup_size(${INVOCATIONS})
fn decode_mix(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let b = wid.y;
  let part = lane % ${LANES}u;
  let row = lane / ${LANES}u;
  let e = wid.x * ${MIX_CHANNELS}u + row;
  let live = e < c.width;
  let channel = min(e, c.width - 1u);
  let head = channel / c.headdim;
  let real = is_real(b);
  let projected = c.projected + b * c.projectedStride;
  let state = slot_of(b) + c.state + channel * ${dState}u + part;
${unrolled(own, (i) => `  var s${i} = 0.0;\n  if ${inside(i)} { s${i} = states[state + ${i * LANES}u]; }\n`)}
  for (var i = lane; i < ${2 * dState}u; i += ${INVOCATIONS}u) {
    let own_channel = channel_of(i, ${dState}u);
    bc[i] = convolved(window_at(b, own_channel), own_channel, arena[projected + column_of(i, ${dState}u)]);
  }
  if (part == 0u) {
    let at = window_at(b, c.start0 + channel);
    let now = arena[projected + c.column0 + channel];
    x_cells[row] = convolved(at, c.start0 + channel, now);
    if (live && real) { move_window(at, now); }
  }
  workgroupBarrier();
  let x = x_cells[row];
  var step = step_of(arena[c.dt + b * c.dtStride + head] + dtBias[head]);
  if (!real) { step = 0.0; }
  let decay = decay_of(rate_of(aLog[head]), step);
  let u = step * x;
  var sum = 0.0;
${unrolled(
  own,
  (i) => `  if ${inside(i)} {
    s${i} = s${i} * decay + u * bc[part + ${i * LANES}u];
    sum += s${i} * bc[${dState}u + part + ${i * LANES}u];
    states[state + ${i * LANES}u] = s${i};
  }
`,
)}  cells[lane] = sum;
  workgroupBarrier();
  if (part > 0u || e >= c.columns) { return; }
  var y = d[select(head, channel, c.skipChannels > 0u)] * x;
  for (var i = 0u; i < ${LANES}u; i++) { y += cells[lane + i]; }
${gated ? '  y *= silu(arena[c.z + b * c.zStride + channel]);\n' : ''}  arena[c.y + b * c.yStride + e] = select(0.0, y, live && real);
}
`;
}
