/** CUDA launch of the chunk scan: step by step in float32 and when short, by chunks on tensor cores otherwise. */

import { paddedColumns } from '../../graph/graph.ts';
import {
  type CudaArgument,
  type CudaKernel,
  type CudaNode,
  type KernelLaunch,
  cType,
  defines,
  f32,
  i32,
  parameterOperand,
  rowOperand,
} from '../cuda-kernel.ts';
import { CHUNKS_SOURCE } from './cuda-chunks.ts';
import { type ScanSplit, fitsChunks, keptBytes, keptLogBytes, scanSplit, statesSharedBytes } from './cuda-split.ts';
import { STEPS_SOURCE } from './cuda-steps.ts';

/** Calls up to this long keep the state in registers from the first step to the last, without staging. */
const LONGEST_SHORT = 8;
/** As in `cuda-steps.ts`. */
const STAGE = 16;
/** Warps of a multiprocessor from which on a warp takes more rows instead. */
const LEAST_WARPS = 8;

function operandTypes(node: CudaNode): Record<string, string> {
  const type = (name: string): string => cType(node.buffer(name).element);
  return { TX: type('x'), TB: type('b'), TC: type('c'), TDT: type('dt'), TY: type('y') };
}

function scanArguments(node: CudaNode): CudaArgument[] {
  const state = node.has('state') ? node.state('state') : undefined;
  return [
    ...['x', 'b', 'c', 'dt', 'y'].flatMap((name) => rowOperand(node, name)),
    parameterOperand(node, 'dtBias'),
    parameterOperand(node, 'aLog'),
    parameterOperand(node, 'd'),
    i32(Number(node.flag('dHasHdim'))),
    f32(node.number('dtMin')),
    f32(node.number('dtMax')),
    state ? state.slotTable : 0n,
    BigInt(state ? state.offset : 0),
    node.has('slots') ? node.buffer('slots').pointer : 0n,
    node.has('lengths') ? node.buffer('lengths').pointer : 0n,
    i32(node.number('length')),
    i32(node.buffer('dt').width),
  ];
}

function stepsLaunch(node: CudaNode): KernelLaunch {
  const length = node.number('length');
  const batch = node.number('batch');
  const dState = node.buffer('b').width;
  const laneElements = dState % 4 === 0 ? 4 * Math.ceil(dState / 32) : Math.ceil(dState / 8);
  const channels = paddedColumns(node.buffer('x').width);
  const short = length <= LONGEST_SHORT;
  // Rows that share loads, and warps of a block: as many as still give every multiprocessor enough warps and blocks.
  let rows = laneElements > 32 ? 1 : laneElements > 16 || short ? 2 : 4;
  while (rows > 1 && (batch * channels) / (4 * rows) < LEAST_WARPS * node.multiprocessors) rows /= 2;
  const warpChannels = 4 * rows;
  let warps = short ? 4 : 8;
  while (warps > 1 && batch * Math.ceil(channels / (warpChannels * warps)) < 2 * node.multiprocessors) warps /= 2;
  const columns = warps * warpChannels;
  return {
    kind: 'kernel',
    source: defines({ N: dState, ROWS: rows, ...operandTypes(node) }) + STEPS_SOURCE,
    entry: short ? 'scan_short' : 'scan_steps',
    grid: [Math.ceil(channels / columns), batch],
    block: 32 * warps,
    ...(short ? {} : { sharedBytes: 4 * 2 * STAGE * (2 * 8 * laneElements + 3 * columns) }),
    args: [...scanArguments(node), i32(node.number('headdim'))],
  };
}

const byChunks = (node: Omit<CudaNode, 'scratch'>): boolean =>
  node.activation !== 'f32' && node.number('length') > LONGEST_SHORT && fitsChunks(node.buffer('b').width);

function splitOfNode(node: Omit<CudaNode, 'scratch'>): ScanSplit {
  return scanSplit({
    batch: node.number('batch'),
    length: node.number('length'),
    heads: node.buffer('dt').width,
    headdim: node.number('headdim'),
    dState: node.buffer('b').width,
    multiprocessors: node.multiprocessors,
  });
}

function chunksLaunches(node: CudaNode): KernelLaunch[] {
  const batch = node.number('batch');
  const split = splitOfNode(node);
  const { stages, segments, segment, batchBlocks } = split;
  const specialisation = {
    HALF: cType(node.activation),
    N: node.buffer('b').width,
    P: node.number('headdim'),
    WARPS: split.warps,
    HEADS: split.heads,
    PARTS: split.parts,
    TILES: split.tiles,
    XP: split.pieces,
    ...operandTypes(node),
  };
  const kept = segments > 1 ? node.scratch : 0n;
  const launch = (statesOnly: boolean): KernelLaunch => ({
    kind: 'kernel',
    source: defines({ ...specialisation, STAGES: stages, STATES_ONLY: Number(statesOnly) }) + CHUNKS_SOURCE,
    entry: 'scan_chunks',
    grid: [split.blocks, batchBlocks, statesOnly ? segments - 1 : segments],
    block: 32 * split.warps,
    sharedBytes: statesOnly ? statesSharedBytes(split) : split.sharedBytes,
    args: [...scanArguments(node), i32(batch), i32(segment), kept, kept && kept + BigInt(batch * keptBytes(split))],
    ...(segments > 1 && !statesOnly ? { startsEarly: true } : {}),
  });
  return segments > 1 ? [launch(true), launch(false)] : [launch(false)];
}

export const chunkScanCuda: CudaKernel = {
  scratchBytes(node) {
    if (!byChunks(node)) return 0;
    const split = splitOfNode(node);
    return split.segments > 1 ? node.number('batch') * (keptBytes(split) + keptLogBytes(split)) : 0;
  },
  launches: (node) => (byChunks(node) ? chunksLaunches(node) : [stepsLaunch(node)]),
};
