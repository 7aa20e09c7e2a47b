/**
 * One decoded step of a layer in three dispatches, where its six nodes would take six: each waits for the one before it,
 * and the host encodes every one anew, which together costs more than most of them have to do.
 *
 * 1. `add_norm` (or `norm`) with in_proj: every workgroup normalises the rows again.
 * 2. The convolution's step, the scan's step and the gate. The result lies where the scan's y would.
 * 3. `gated_norm` (or, gated already, nothing) with out_proj. The windows of B and C, which all workgroups of the second
 *    dispatch read, are moved on here.
 *
 * What the nodes pass to each other inside - y of the norm, of the convolution and of the gate - is never written: nothing
 * else may read it. Workgroups write outputs while others still read inputs, so no output may lie where an input does. A
 * sequence of length 0 keeps its state, and its y is 0.
 */

import { paddedColumns, segmentColumns } from '../../graph/graph.ts';
import { dtLimits, STEP_SOURCE } from '../chunk-scan/webgpu-parts.ts';
import { type StagedRows, partDispatch } from '../linear/webgpu.ts';
import { FEW_ROWS_BLOCK } from '../linear/webgpu-few-rows.ts';
import {
  type WebGpuConstants,
  type WebGpuDispatch,
  type WebGpuNode,
  arena,
  f32,
  reads,
  rowConstants,
  states,
} from '../webgpu-kernel.ts';
import { SIGMOID_SOURCE, sums } from '../webgpu-sums.ts';
import type { DecodeLayer } from './layer.ts';
import { MIX_CHANNELS, asideSource, mixSource } from './webgpu-mix-source.ts';

/** Rows that a workgroup holds whole: half of its memory. */
const STAGED_BYTES = 8 * 1024;
/** Columns of a product whose workgroups, four columns each, repeat a norm in less time than a dispatch of its own takes. */
const MOST_COLUMNS = 8192;
/** Largest N whose B and C a workgroup keeps. */
const MOST_STATE = 512;

/** Whether a norm and its product fit one dispatch. */
export function normProductFuses(norm: WebGpuNode, linear: WebGpuNode): boolean {
  const { rows, width } = norm.buffer('x');
  const columns = linear.buffer('y').width;
  return 4 * rows * paddedColumns(width) <= STAGED_BYTES && columns <= MOST_COLUMNS && linear.weight('weight').parts.length === 1;
}

/** Whether a layer's step is what these dispatches compute; that its nodes are wired as in a mixer is the caller's to see. */
export function decodeLayerFuses({ norm, inProj, conv, scan, gate, outProj }: DecodeLayer<WebGpuNode>): boolean {
  const segments = conv.segments('segments');
  const dState = scan.buffer('b').width;
  return (
    normProductFuses(norm, inProj) &&
    normProductFuses(gate, outProj) &&
    conv.number('length') === 1 &&
    conv.has('state') &&
    scan.has('state') &&
    conv.weight('weight').shape[2] === 4 &&
    dState <= MOST_STATE &&
    segments.length === 3 &&
    segments[0]!.count === scan.buffer('x').width &&
    segments[1]!.count === dState &&
    segments[2]!.count === dState
  );
}

/** The three dispatches of a layer's step. */
export function decodeLayerDispatches({
  norm,
  inProj,
  conv,
  scan,
  gate,
  outProj,
}: DecodeLayer<WebGpuNode>): readonly WebGpuDispatch[] {
  return [normProduct(norm, inProj), mixDispatch(conv, scan, gate), product(outProj, gatedRows(conv, scan, gate))];
}

function product(linear: WebGpuNode, rows: StagedRows): WebGpuDispatch {
  const weight = linear.weight('weight');
  return partDispatch(linear, weight, weight.parts[0]!, rows)!;
}

/** `add_norm` or `norm`, and the linear map of its y, which is not written. Neither `sum` nor the map's y may lie where x or the residual does. */
export function normProduct(norm: WebGpuNode, linear: WebGpuNode): WebGpuDispatch {
  const isAdding = norm.has('residual');
  return product(
    linear,
    stagedNorm(norm, {
      center: norm.flag('center'),
      load: isAdding
        ? `v = masked(v + arena[at(c.residual, c.residualStride, row, 4u * i)], 4u * i, c.width);
      if (is_first) { arena[at(c.sum, c.sumStride, row, 4u * i)] = v; }`
        : '',
      finish: '',
      constants: isAdding ? rowConstants(norm, 'residual', 'sum') : {},
    }),
  );
}

interface NormSource {
  readonly center: boolean;
  /** Statements on `v`, four columns from 4 `i` on of a `row`, before the norm and after it. */
  readonly load: string;
  readonly finish: string;
  readonly constants: WebGpuConstants;
}

/** The norm of x's rows by the weight and bias of its node, in workgroup memory. */
function stagedNorm(node: WebGpuNode, { center, load, finish, constants }: NormSource): StagedRows {
  const x = node.buffer('x');
  const quads = paddedColumns(x.width) / 4;
  const hasBias = node.has('bias');
  const own = `for (var i = lane; i < ${quads}u; i += ${FEW_ROWS_BLOCK}u)`;
  const source = `${sums('stage_sum', 'f32', FEW_ROWS_BLOCK)}
var<workgroup> staged: array<vec4<f32>, ${x.rows * quads}>;
fn x_of(row: u32, quad: u32) -> vec4<f32> { return staged[row * ${quads}u + quad]; }
fn stage(lane: u32, is_first: bool) {
  for (var row = 0u; row < ${x.rows}u; row++) {
    var total = 0.0;
    ${own} {
      var v = arena[at(c.x, c.xStride, row, 4u * i)];
      ${load}
      staged[row * ${quads}u + i] = v;
      total += ${center ? 'v.x + v.y + v.z + v.w' : 'dot(v, v)'};
    }
${
  center
    ? `    let mean = stage_sum(total, lane) / f32(c.width);
    total = 0.0;
    ${own} {
      let v = masked(staged[row * ${quads}u + i] - mean, 4u * i, c.width);
      staged[row * ${quads}u + i] = v;
      total += dot(v, v);
    }
`
    : ''
}    let scale = 1.0 / sqrt(stage_sum(total, lane) / f32(c.width) + c.eps);
    ${own} {
      var v = staged[row * ${quads}u + i] * scale * stage_weight[i]${hasBias ? ' + stage_bias[i]' : ''};
      ${finish}
      staged[row * ${quads}u + i] = masked(v, 4u * i, c.width);
    }
    workgroupBarrier();
  }
}
`;
  return {
    x,
    source,
    aside: false,
    bindings: [
      reads('stage_weight', node.weight('weight').values, 'vec4<f32>'),
      ...(hasBias ? [reads('stage_bias', node.weight('bias').values, 'vec4<f32>')] : []),
    ],
    constants: { ...constants, width: x.width, eps: f32(node.number('eps')) },
  };
}

/** Whether the gate comes after the norm, and so in the third dispatch. */
function gatesLast(gate: WebGpuNode): boolean {
  return gate.has('weight') && gate.flag('normBeforeGate');
}

/** Where the projected rows, the windows and the sequences' states lie. */
function placeConstants(conv: WebGpuNode): WebGpuConstants {
  const segments = conv.segments('segments');
  const { columns } = segmentColumns(segments);
  const { offset, stride } = conv.buffer('x');
  return {
    projected: offset,
    projectedStride: stride,
    channels: conv.weight('weight').shape[0]!,
    window: conv.state('state').offset,
    slots: conv.buffer('slots').offset,
    ragged: Number(conv.has('lengths')),
    lengths: conv.has('lengths') ? conv.buffer('lengths').offset : 0,
    ...Object.fromEntries(columns.map((column, s) => [`column${s}`, column])),
    ...Object.fromEntries(segments.map(({ start }, s) => [`start${s}`, start])),
  };
}

function mixDispatch(conv: WebGpuNode, scan: WebGpuNode, gate: WebGpuNode): WebGpuDispatch {
  const { width } = scan.buffer('x');
  const gated = !gatesLast(gate);
  const columns = paddedColumns(width);
  return {
    kind: 'dispatch',
    source: SIGMOID_SOURCE + STEP_SOURCE + mixSource(scan.buffer('b').width, conv.has('bias'), gated),
    entry: 'decode_mix',
    workgroups: [Math.ceil(columns / MIX_CHANNELS), scan.number('batch')],
    bindings: [
      arena(),
      states(),
      reads('taps', conv.weight('weight').values, 'vec4<f32>'),
      ...(conv.has('bias') ? [reads('bias', conv.weight('bias').values)] : []),
      reads('dtBias', scan.weight('dtBias').values),
      reads('aLog', scan.weight('aLog').values),
      reads('d', scan.weight('d').values),
    ],
    constants: {
      ...placeConstants(conv),
      ...rowConstants(scan, 'dt', 'y'),
      ...rowConstants(gate, 'z'),
      ...dtLimits(scan),
      state: scan.state('state').offset,
      skipChannels: Number(scan.flag('dHasHdim')),
      headdim: scan.number('headdim'),
      width,
      columns,
    },
  };
}

/** The gated norm of what `mixDispatch` wrote, and the windows of B and C. */
function gatedRows(conv: WebGpuNode, scan: WebGpuNode, gate: WebGpuNode): StagedRows {
  const last = gatesLast(gate);
  const x = gate.buffer('x');
  const rows: StagedRows = gate.has('weight')
    ? stagedNorm(gate, {
        center: false,
        load: '',
        finish: last ? 'let z = arena[at(c.z, c.zStride, row, 4u * i)];\n      v *= z * sigmoid(z);' : '',
        constants: last ? rowConstants(gate, 'z') : {},
      })
    : { x, source: PLAIN_ROWS, aside: false, bindings: [], constants: {} };
  const source = (last ? SIGMOID_SOURCE : '') + rows.source + asideSource(scan.buffer('b').width, FEW_ROWS_BLOCK);
  return {
    ...rows,
    source,
    aside: true,
    bindings: [...rows.bindings, states()],
    constants: { ...rows.constants, ...placeConstants(conv), batch: x.rows },
  };
}

const PLAIN_ROWS = `
fn x_of(row: u32, quad: u32) -> vec4<f32> { return arena[(c.x + row * c.xStride) / 4u + quad]; }
fn stage(lane: u32, is_first: bool) {}
`;
