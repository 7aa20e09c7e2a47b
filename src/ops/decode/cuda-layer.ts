/**
 * One decoded step of a layer in three launches, where its six nodes would take a launch each: in a recorded graph a
 * launch costs more than most of these kernels have to do.
 *
 * 1. `add_norm` (or `norm`) with in_proj: every block normalises the rows again, while its weights are on their way.
 * 2. The convolution's step, the scan's step and the gate, per part of a head. Its result lies where the scan's y would.
 * 3. `gated_norm` (or, gated already, nothing) with out_proj. The windows of B and C, which all blocks of the second
 *    launch read, are moved on here.
 *
 * What the nodes pass to each other inside - y of the norm, of the convolution and of the gated norm - is never written:
 * nothing else may read it. Blocks write outputs while others still read inputs, so no output may lie where an input
 * does: plan the six nodes as one that reads x and the residual, writes in_proj's y, `sum`, the scan's y and out_proj's
 * y, and does nothing in place. A sequence of length 0 keeps its state, and its y means nothing.
 */

import { segmentColumns } from '../../graph/graph.ts';
import {
  type CudaLaunch,
  type CudaNode,
  type KernelLaunch,
  cType,
  defines,
  f32,
  i32,
  parameterOperand,
  rowOperand,
  typeOf,
} from '../cuda-kernel.ts';
import { type FewRowsStage, fewRowsLaunch } from '../linear/cuda-few-rows.ts';
import type { DecodeLayer } from './layer.ts';
import { DECODE_MIX_SOURCE } from './cuda-mix-source.ts';

/** Largest number of threads of the second launch, which give B and C of all states one each. */
const MAX_MIX_THREADS = 512;
/** Channels of a head that are worth a block of their own. */
const MIN_PART = 8;

/** Whether a layer's step is what these launches compute; that its nodes are wired as in a mixer is the caller's to see. */
export function decodeLayerFuses({ conv, scan, gate }: DecodeLayer<CudaNode>): boolean {
  const segments = conv.segments('segments');
  const dState = scan.buffer('b').width;
  return (
    conv.number('length') === 1 &&
    conv.has('state') &&
    scan.has('state') &&
    conv.state('state').slotTable === scan.state('state').slotTable &&
    conv.buffer('slots').pointer === scan.buffer('slots').pointer &&
    conv.has('lengths') === scan.has('lengths') &&
    segments.length === 3 &&
    segments[0]!.count === scan.buffer('x').width &&
    segments[1]!.count === dState &&
    segments[2]!.count === dState &&
    gate.buffer('x').pointer === scan.buffer('y').pointer
  );
}

/** The three launches of a layer's step. */
export function decodeLayerLaunches(layer: DecodeLayer<CudaNode>): readonly CudaLaunch[] {
  return [normLinearLaunch(layer.norm, layer.inProj), mixLaunch(layer), gatedLinearLaunch(layer)];
}

function product(linear: CudaNode, x: CudaNode, stage: FewRowsStage): KernelLaunch {
  return fewRowsLaunch({
    x: x.buffer('x'),
    y: linear.buffer('y'),
    weight: linear.weight('weight'),
    bias: parameterOperand(linear, 'bias'),
    segments: linear.segments('segments'),
    multiprocessors: linear.multiprocessors,
    stage,
  });
}

/**
 * `add_norm` or `norm`, and the linear map of its y, which is not written. Neither `sum` nor the map's y may lie where x
 * or the residual does.
 */
export function normLinearLaunch(norm: CudaNode, linear: CudaNode): KernelLaunch {
  return product(linear, norm, {
    defines: {
      STAGE: 1,
      WINDOW: 0,
      FOLD: norm.flag('center') || norm.has('bias') ? 0 : 1,
      RESIDUAL: norm.has('residual') ? 1 : 0,
      RESIDUAL_TYPE: typeOf(norm, 'residual'),
      SUM_TYPE: typeOf(norm, 'sum'),
      CENTER: norm.flag('center') ? 1 : 0,
    },
    args: [
      ...rowOperand(norm, 'residual'),
      ...rowOperand(norm, 'sum'),
      parameterOperand(norm, 'weight'),
      parameterOperand(norm, 'bias'),
      f32(norm.number('eps')),
    ],
  });
}

/** Whether the gate comes after the norm, and so in the third launch. */
function gatesLast(gate: CudaNode): boolean {
  return gate.has('weight') && gate.flag('normBeforeGate');
}

/** The steps of the convolution and the scan, and the gate unless it comes after the norm; written to the scan's y. */
export function mixLaunch({ conv, scan, gate }: Pick<DecodeLayer<CudaNode>, 'conv' | 'scan' | 'gate'>): KernelLaunch {
  const [x, b, c] = conv.segments('segments');
  const { columns } = segmentColumns(conv.segments('segments'));
  const weight = conv.weight('weight');
  const heads = scan.buffer('dt').width;
  const P = scan.number('headdim');
  const N = scan.buffer('b').width;
  const batch = scan.number('batch');
  const scanState = scan.state('state');
  const convState = conv.state('state');
  // Heads are cut so that all multiprocessors have work.
  const wanted = Math.ceil((2 * scan.multiprocessors) / (heads * batch));
  const part = Math.ceil(P / Math.max(1, Math.min(Math.ceil(P / MIN_PART), wanted)));
  const vector = N % 4 === 0 && scanState.offset % 16 === 0 ? 4 : 1;
  const team = Math.min(32, 2 ** Math.ceil(Math.log2(N / vector)));
  const threads = Math.min(MAX_MIX_THREADS, 32 * Math.ceil((2 * N + part) / 32));
  const gated = !gatesLast(gate);
  const [xPointer, xStride] = rowOperand(conv, 'x');
  return {
    kind: 'kernel',
    source:
      defines({
        X: typeOf(conv, 'x'),
        DT: typeOf(scan, 'dt'),
        Z: typeOf(gate, 'z'),
        Y: typeOf(scan, 'y'),
        P,
        PART: part,
        N,
        TAPS: weight.shape[2]!,
        VEC: vector,
        TEAM: team,
        PER: Math.ceil(N / (vector * team)),
        THREADS: threads,
        GATE: gated ? 1 : 0,
        D_PER_CHANNEL: scan.flag('dHasHdim') ? 1 : 0,
      }) + DECODE_MIX_SOURCE,
    entry: 'decode_mix',
    startsEarly: true,
    grid: [Math.ceil(P / part), heads, batch],
    block: threads,
    args: [
      xPointer,
      xStride,
      ...columns.map(i32),
      ...[x!, b!, c!].map(({ start }) => i32(start)),
      i32(weight.shape[0]!),
      weight.pointer,
      parameterOperand(conv, 'bias'),
      i32(convState.offset),
      ...rowOperand(scan, 'dt'),
      scan.weight('dtBias').pointer,
      scan.weight('aLog').pointer,
      scan.weight('d').pointer,
      f32(scan.number('dtMin')),
      f32(scan.number('dtMax')),
      i32(scanState.offset),
      scanState.slotTable,
      scan.buffer('slots').pointer,
      scan.has('lengths') ? scan.buffer('lengths').pointer : 0n,
      ...rowOperand(gate, 'z'),
      ...rowOperand(scan, 'y'),
    ],
  };
}

/** The gated norm of what `mixLaunch` wrote, the linear map of it, and the windows of B and C. */
export function gatedLinearLaunch({ conv, scan, gate, outProj }: Omit<DecodeLayer<CudaNode>, 'norm' | 'inProj'>): KernelLaunch {
  const [, b, c] = conv.segments('segments');
  const { columns } = segmentColumns(conv.segments('segments'));
  const weight = conv.weight('weight');
  const state = conv.state('state');
  const normed = gate.has('weight');
  return product(outProj, gate, {
    // The windows are a block of their own: finding them takes three loads, one after the other.
    moreBlocks: 1,
    defines: {
      STAGE: normed ? 2 : 0,
      FOLD: normed ? 1 : 0,
      WINDOW: 1,
      I: cType(conv.buffer('x').element),
      Z: typeOf(gate, 'z'),
      GATE: gatesLast(gate) ? 1 : 0,
    },
    args: [
      ...(normed ? [...rowOperand(gate, 'z'), gate.weight('weight').pointer, 0n, f32(gate.number('eps'))] : []),
      ...rowOperand(conv, 'x'),
      ...columns.slice(1).map(i32),
      i32(b!.start),
      i32(c!.start),
      i32(scan.buffer('b').width),
      i32(weight.shape[2]!),
      i32(weight.shape[0]!),
      state.slotTable,
      i32(state.offset),
      conv.buffer('slots').pointer,
      conv.has('lengths') ? conv.buffer('lengths').pointer : 0n,
    ],
  });
}
