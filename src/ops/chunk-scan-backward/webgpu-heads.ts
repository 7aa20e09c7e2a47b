/** WGSL of what is a head's in the scan's gradient: ddt, sums for the parameters, and the weights of pairs of steps. */

import { CHUNK } from '../chunk-scan/webgpu-parts.ts';
import { unrolled } from '../webgpu-text.ts';

/** Sums over a chunk's steps that a head has: of ddt, of rate step D, of dy x. */
export const HEAD_SUMS = 3;
const SLAB = 16;
const ROW = CHUNK / 4 + 1;
const INVOCATIONS = 256;
const PIECES = 16;

/**
 * Of a chunk and some heads, `i` and `j` steps of it: w[i][j] = decays(j + 1 .. i) step[j] (dy[i] . x[j]) for j <= i;
 * weights[i][j] = the sum of w over the heads. D[t] = decay[t] <gradient of the state at t, state before t> is what passes
 * through t: the sum over j < t <= i of w[i][j] (c[i] . b[j]), what comes from before the chunk for i >= t, what goes beyond
 * it from j < t, and what does both, all kept small by their own decays. ddt[t] = (x[t] q[t] - rate D[t]) slope[t].
 *
 * Invocation (iq, jq) has steps 4 iq ... x 4 jq ... of w. Heads come in fours, a vector of ddt. Workgroups: groups of heads
 * x chunks x sequences.
 */
export const HEADS_SOURCE = `
var<workgroup> dy_cells: array<vec4<f32>, ${SLAB * ROW}>;
var<workgroup> x_cells: array<vec4<f32>, ${SLAB * ROW}>;
var<workgroup> part_cells: array<vec4<f32>, ${INVOCATIONS}>;
var<workgroup> step_sums: array<vec4<f32>, ${CHUNK}>;
var<workgroup> both_cells: array<f32, ${INVOCATIONS}>;
var<workgroup> quad_decays: array<f32, ${PIECES}>;
// What passes through the steps of a quad, by where it begins and ends: within it, before, beyond, both.
var<workgroup> inner_cells: array<vec4<f32>, ${PIECES}>;
var<workgroup> from_cells: array<vec4<f32>, ${PIECES}>;
var<workgroup> to_cells: array<vec4<f32>, ${PIECES}>;
var<workgroup> over_cells: array<f32, ${PIECES}>;
var<workgroup> both_sums: array<f32, ${PIECES}>;

@compute @workgroup_size(${INVOCATIONS})
fn scan_heads(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let place = wid.z * c.chunks + wid.y;
  let first = wid.y * ${CHUNK}u;
  let count = min(c.length - first, ${CHUNK}u);
  let first_row = (c.firstSequence + wid.z) * c.length + first;
  let iq = lane / 16u;
  let jq = lane % 16u;
  let products = c.products + (place * ${CHUNK}u + 4u * iq) * ${CHUNK / 4}u + jq;
${unrolled(4, (a) => `  let g${a} = arena[products + ${(a * CHUNK) / 4}u];\n  var w${a} = vec4<f32>();\n`)}
  for (var quad = wid.x * c.groupQuads; quad < min((wid.x + 1u) * c.groupQuads, c.ddtQuads); quad++) {
    // Of step lane, for those of a chunk: components are the four heads'.
    var ddt = vec4<f32>();
    var rates = vec4<f32>();
    var skips = vec4<f32>();
    for (var k = 0u; k < min(4u, c.heads - min(c.heads, 4u * quad)); k++) {
      let head = 4u * quad + k;
      let coefficients = c.coefficients + place * ${CHUNK}u * c.heads + head;
      let channel = head * c.headdim;
      if (lane < ${PIECES}u) {
        let at = coefficients + 4u * lane * c.heads;
        quad_decays[lane] = arena[at].y * arena[at + c.heads].y * arena[at + 2u * c.heads].y * arena[at + 3u * c.heads].y;
      }
${unrolled(4, (a) => `      var v${a} = vec4<f32>();\n`)}
      for (var p0 = 0u; p0 < c.headdim; p0 += ${SLAB}u) {
        let p = lane % ${SLAB}u;
        let q = lane / ${SLAB}u;
        var dy = vec4<f32>();
        var x = vec4<f32>();
        if (p0 + p < c.headdim) {
          for (var j = 0u; j < 4u; j++) {
            if (4u * q + j < count) {
              let row = first_row + 4u * q + j;
              dy[j] = component(c.dy + row * c.dyStride + channel + p0 + p);
              x[j] = component(c.x + row * c.xStride + channel + p0 + p);
            }
          }
        }
        dy_cells[p * ${ROW}u + q] = dy;
        x_cells[p * ${ROW}u + q] = x;
        workgroupBarrier();
        if (iq >= jq) {
          for (var i = 0u; i < min(${SLAB}u, c.headdim - p0); i++) {
            let dy_own = dy_cells[i * ${ROW}u + iq];
            let x_own = x_cells[i * ${ROW}u + jq];
            v0 += dy_own.x * x_own;
            v1 += dy_own.y * x_own;
            v2 += dy_own.z * x_own;
            v3 += dy_own.w * x_own;
          }
        }
        workgroupBarrier();
      }

      if (iq >= jq) {
        let i_at = coefficients + 4u * iq * c.heads;
        let j_at = coefficients + 4u * jq * c.heads;
        let j0 = arena[j_at];
        let j1 = arena[j_at + c.heads];
        let j2 = arena[j_at + 2u * c.heads];
        let j3 = arena[j_at + 3u * c.heads];
        let steps = vec4<f32>(j0.x, j1.x, j2.x, j3.x);
        var decays0: vec4<f32>;
        var decays1: vec4<f32>;
        var decays2: vec4<f32>;
        var decays3: vec4<f32>;
        if (iq == jq) {
          decays0 = vec4<f32>(1.0, 0.0, 0.0, 0.0);
          decays1 = vec4<f32>(j1.y, 1.0, 0.0, 0.0);
          decays2 = vec4<f32>(j1.y * j2.y, j2.y, 1.0, 0.0);
          decays3 = vec4<f32>(j1.y * j2.y * j3.y, j2.y * j3.y, j3.y, 1.0);
        } else {
          var between = arena[i_at].y;
          for (var q = jq + 1u; q < iq; q++) { between *= quad_decays[q]; }
          decays0 = between * vec4<f32>(j1.y * j2.y * j3.y, j2.y * j3.y, j3.y, 1.0);
          decays1 = decays0 * arena[i_at + c.heads].y;
          decays2 = decays1 * arena[i_at + 2u * c.heads].y;
          decays3 = decays2 * arena[i_at + 3u * c.heads].y;
        }
${unrolled(4, (a) => `        v${a} *= decays${a} * steps;\n        w${a} += v${a};\n        let m${a} = v${a} * g${a};\n`)}
        let r = vec4<f32>(dot(m0, vec4<f32>(1.0)), dot(m1, vec4<f32>(1.0)), dot(m2, vec4<f32>(1.0)), dot(m3, vec4<f32>(1.0)));
        let s = m0 + m1 + m2 + m3;
        // Component t: sums over rows from t on, and over columns before t.
        dy_cells[lane] = vec4<f32>((r.x + r.y) + (r.z + r.w), r.y + (r.z + r.w), r.z + r.w, r.w);
        x_cells[lane] = vec4<f32>(0.0, s.x, s.x + s.y, s.x + s.y + s.z);
        if (iq == jq) {
          inner_cells[iq] = vec4<f32>(0.0, m1.x + m2.x + m3.x, m2.x + m2.y + m3.x + m3.y, m3.x + m3.y + m3.z);
        }
      }
      // Of each step, the sums over the head's columns: from before, beyond, x q, dy x.
      {
        let t = lane / 4u;
        let at = c.parts * 4u + (place * ${CHUNK}u + t) * c.columns + channel;
        var sums = vec4<f32>();
        for (var p = lane % 4u; p < c.headdim; p += 4u) {
          var skip = 0.0;
          if (t < count) {
            let row = first_row + t;
            skip = component(c.dy + row * c.dyStride + channel + p) * component(c.x + row * c.xStride + channel + p);
          }
          sums += vec4<f32>(component(at + p), component(at + 4u * c.partsSize + p), component(at + 8u * c.partsSize + p), skip);
        }
        part_cells[lane] = sums;
      }
      // State and gradient that both reach beyond the chunk.
      var both = 0.0;
      if (wid.y > 0u && wid.y + 1u < c.chunks) {
        let at = place * c.stateColumns * c.columns + channel;
        for (var i = lane; i < c.headdim * c.dState; i += ${INVOCATIONS}u) {
          let n = i / c.headdim;
          let from_at = at + n * c.columns + i - n * c.headdim;
          both += component(4u * c.states + from_at) * component(4u * c.adjoints + from_at);
        }
      }
      both_cells[lane] = both;
      workgroupBarrier();

      if (lane < ${CHUNK}u) {
        step_sums[lane] = (part_cells[4u * lane] + part_cells[4u * lane + 1u]) + (part_cells[4u * lane + 2u] + part_cells[4u * lane + 3u]);
      } else if (lane < ${CHUNK + PIECES}u) {
        let q = lane - ${CHUNK}u;
        var sum = vec4<f32>();
        for (var j = 0u; j < q; j++) { sum += dy_cells[16u * q + j]; }
        from_cells[q] = sum;
      } else if (lane >= 96u && lane < ${96 + PIECES}u) {
        let q = lane - 96u;
        var sum = vec4<f32>();
        for (var i = q + 1u; i < ${PIECES}u; i++) { sum += x_cells[16u * i + q]; }
        to_cells[q] = sum;
      } else if (lane >= 128u && lane < ${128 + PIECES}u) {
        let q = lane - 128u;
        var sum = 0.0;
        for (var i = q + 1u; i < ${PIECES}u; i++) {
          for (var j = 0u; j < q; j++) { sum += dy_cells[16u * i + j].x; }
        }
        over_cells[q] = sum;
      } else if (lane >= 160u && lane < ${160 + PIECES}u) {
        let q = lane - 160u;
        var sum = 0.0;
        for (var i = q; i < ${INVOCATIONS}u; i += ${PIECES}u) { sum += both_cells[i]; }
        both_sums[q] = sum;
      }
      workgroupBarrier();

      if (lane < count) {
        let q = lane / 4u;
        var passing = over_cells[q] + from_cells[q][lane % 4u] + to_cells[q][lane % 4u] + inner_cells[q][lane % 4u];
        for (var t = 0u; t < ${CHUNK}u; t++) {
          let sums = step_sums[t];
          passing += select(sums.y, sums.x, t >= lane);
        }
        var sum = 0.0;
        for (var i = 0u; i < ${PIECES}u; i++) { sum += both_sums[i]; }
        passing += sum * arena[coefficients + ${CHUNK - 1}u * c.heads].z;
        let rate = rate_of(aLog[head]);
        let raw = component(c.dt + (first_row + lane) * c.dtStride + head) + dtBias[head];
        let step = softplus(raw);
        let e = exp(-abs(raw));
        var slope = select(e, 1.0, raw >= 0.0) / (1.0 + e);
        if (step < c.dtMin || step > c.dtMax) { slope = 0.0; }
        let sums = step_sums[lane];
        let change = rate * passing;
        ddt[k] = (sums.z - change) * slope;
        rates[k] = -change * arena[coefficients + lane * c.heads].x;
        skips[k] = sums.w;
      }
      workgroupBarrier();
    }
    if (lane < count) { arena[(c.ddt + (first_row + lane) * c.ddtStride) / 4u + quad] = ddt; }
    if (c.trained > 0u) {
      if (lane < ${CHUNK}u) {
        part_cells[lane] = ddt;
        part_cells[${CHUNK}u + lane] = rates;
        part_cells[${2 * CHUNK}u + lane] = skips;
      }
      workgroupBarrier();
      if (lane < ${HEAD_SUMS}u) {
        var sum = vec4<f32>();
        for (var t = 0u; t < ${CHUNK}u; t++) { sum += part_cells[${CHUNK}u * lane + t]; }
        arena[c.headSums + (((c.firstSequence + wid.z) * c.chunks + wid.y) * ${HEAD_SUMS}u + lane) * c.ddtQuads + quad] = sum;
      }
      workgroupBarrier();
    }
  }
  let to = c.weights + ((place * c.groups + wid.x) * ${CHUNK}u + 4u * iq) * ${CHUNK / 4}u + jq;
${unrolled(4, (a) => `  arena[to + ${(a * CHUNK) / 4}u] = w${a};\n`)}}
`;
