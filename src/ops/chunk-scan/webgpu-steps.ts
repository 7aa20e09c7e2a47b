/** WGSL of the scan step by step, for calls of few steps: the state stays in registers from the first to the last. */

import { unrolled } from '../webgpu-text.ts';

const INVOCATIONS = 64;

export interface StepsShape {
  readonly source: string;
  /** Channels of a workgroup. */
  readonly rows: number;
}

/**
 * S = S exp(-rate step) + step x (outer) b; y = S c + d x. A channel's row of N state elements lies on a few neighbouring
 * invocations; N elements are read as vectors where they are whole ones. Channels of a workgroup: a multiple of 4.
 */
export function stepsSource(dState: number, carried: boolean): StepsShape {
  const whole = dState % 4 === 0;
  const parts = whole ? dState / 4 : dState;
  let lanes = 1;
  while (lanes < 16 && lanes < parts) lanes *= 2;
  const own = Math.ceil(parts / lanes);
  const rows = INVOCATIONS / lanes;
  const type = whole ? 'vec4<f32>' : 'f32';
  // Whether element `i` of an invocation is one of the row's.
  const inside = (i: number): string => ((i + 1) * lanes <= parts ? 'true' : `part + ${i * lanes}u < ${parts}u`);
  const read = (name: string, i: number): string =>
    whole
      ? `arena[${name}_at / 4u + min(part + ${i * lanes}u, ${parts - 1}u)]`
      : `component(${name}_at + min(part + ${i * lanes}u, ${parts - 1}u))`;
  const source = `
var<workgroup> cells: array<f32, ${2 * INVOCATIONS}>;
var<workgroup> sums: array<f32, ${2 * rows}>;
@compute @workgroup_size(${INVOCATIONS})
fn scan_steps(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let b = wid.y;
  let part = lane % ${lanes}u;
  let e = wid.x * ${rows}u + lane / ${lanes}u;
  let live = e < c.width;
  let channel = min(e, c.width - 1u);
  let head = channel / c.headdim;
  let rate = rate_of(aLog[head]);
  let bias = dtBias[head];
  let skip = d[select(head, channel, c.skipChannels > 0u)];
  let real = real_steps(b);
${
  carried
    ? `  let state = (bitcast<u32>(component(c.slots + b)) * 64u + c.state + channel * ${dState}u)${whole ? ' / 4u' : ''} + part;
${unrolled(
  own,
  (i) => `  var s${i} = ${type}();
  if (${inside(i)}) { s${i} = states[state + ${i * lanes}u]; }
`,
)}`
    : unrolled(own, (i) => `  var s${i} = ${type}();\n`)
}
  for (var t = 0u; t < c.length; t++) {
    let row = b * c.length + t;
    let b_at = c.b + row * c.bStride;
    let c_at = c.c + row * c.cStride;
    let x = component(c.x + row * c.xStride + channel);
    let raw = component(c.dt + row * c.dtStride + head) + bias;
${unrolled(own, (i) => `    let b${i} = ${read('b', i)};\n    let c${i} = ${read('c', i)};\n`)}
    var step = step_of(raw);
    if (t >= real) { step = 0.0; }
    let decay = decay_of(rate, step);
    let u = step * x;
    var sum = ${type}();
${unrolled(
  own,
  (i) => `    s${i} = s${i} * decay + u * b${i};
    if (${inside(i)}) { sum += s${i} * c${i}; }
`,
)}
    var total = ${whole ? '(sum.x + sum.y) + (sum.z + sum.w)' : 'sum'};
    if (part == 0u) { total += skip * x; }
    // Two halves by turns: what the step before wrote may still be read.
    let half = t % 2u;
    cells[half * ${INVOCATIONS}u + lane] = select(0.0, total, live && t < real);
    workgroupBarrier();
    if (lane < ${rows}u) {
      var y = 0.0;
      for (var i = 0u; i < ${lanes}u; i++) { y += cells[half * ${INVOCATIONS}u + lane * ${lanes}u + i]; }
      sums[half * ${rows}u + lane] = y;
    }
    workgroupBarrier();
    let column = wid.x * ${rows}u + 4u * lane;
    if (lane < ${rows / 4}u && column < c.columns) {
      let at = half * ${rows}u + 4u * lane;
      arena[(c.y + row * c.yStride + column) / 4u] = vec4<f32>(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]);
    }
  }
${
  carried
    ? unrolled(
        own,
        (i) => `  if (live && ${inside(i)}) { states[state + ${i * lanes}u] = s${i}; }
`,
      )
    : ''
}}
`;
  return { source, rows };
}
