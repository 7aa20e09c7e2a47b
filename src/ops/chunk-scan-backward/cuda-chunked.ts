/**
 * Launches of the scan's gradient by chunks on tensor cores, for 16-bit activations: the states and their adjoints at the
 * chunks' borders, then all chunks at once, head by head, then db and dc. `cuda-heads-source.ts` has the maths.
 */

import {
  type CudaLaunch,
  type CudaNode,
  type CudaArgument,
  cType,
  defines,
  f32,
  i32,
  parameterOperand,
  rowOperand,
  typeOf,
} from '../cuda-kernel.ts';
import { CHUNKED_SOURCE } from './cuda-chunked-source.ts';
import { HEADS_SOURCE } from './cuda-heads-source.ts';
import { STATE_GRADIENTS_SOURCE } from './cuda-state-gradients-source.ts';
import { STATES_SOURCE } from './cuda-states-source.ts';
import { UNIT_SOURCE } from './cuda-unit-source.ts';
import { type ScanShape, ScratchPlan, shapeOf } from './cuda-units.ts';

type Node = Omit<CudaNode, 'scratch'>;

/** As in the sources. */
const CHUNK = 64;
const STAGE_CHANNELS = 32;
const STAGES = 4;
const STATES_STAGES = 3;
/** Floats of a group's weights. */
const WEIGHTS = 2560;
/** Shared memory that a block may have, and a multiprocessor for all of them, 1 KB of each block's its own. */
const SHARED_BYTES = 227 * 1024;
const MULTIPROCESSOR_BYTES = 228 * 1024;
/** Batches are cut so that what a group of launches leaves in scratch memory stays below this, one row at least. */
const SCRATCH_BYTES = 600 * 2 ** 20;

const chunksOf = ({ length }: ScanShape): number => Math.ceil(length / CHUNK);

/** Most heads that a number of channels in a row are of. */
const headsOf = (channels: number, headdim: number): number => Math.floor((channels + headdim - 2) / headdim) + 1;

/** Columns of the state of a block: all of them in equal parts, at most 128. */
function blockColumns({ stateColumns }: ScanShape): number {
  let parts = Math.ceil(stateColumns / 128);
  while (stateColumns % (16 * parts) !== 0) parts++;
  return stateColumns / parts;
}

/** Warps of a block of the first kernel: as many as still give every multiprocessor two blocks. */
function statesWarps(shape: ScanShape, multiprocessors: number): number {
  const blocks = (warps: number): number =>
    2 * shape.batch * Math.ceil((shape.heads * shape.headdim) / (16 * warps)) * (shape.stateColumns / blockColumns(shape));
  let warps = 8;
  while (warps > 1 && (blocks(warps) < 2 * multiprocessors || statesShared(shape, warps) > MULTIPROCESSOR_BYTES / 2 - 1024))
    warps /= 2;
  return warps;
}

/** `sizeof(Memory)` of the sources. */
function statesShared(shape: ScanShape, warps: number): number {
  const heads = headsOf(16 * warps, shape.headdim);
  return 16 * Math.ceil((2 * STATES_STAGES * CHUNK * (16 * warps + 8 + blockColumns(shape) + 8) + 8 * heads * (CHUNK + 1)) / 16);
}

function gradientsShared(shape: ScanShape): number {
  const columns = blockColumns(shape);
  const rows = 2 * CHUNK * (STAGE_CHANNELS + 8);
  const stage = rows + 2 * columns * STAGE_CHANNELS + 4 * CHUNK * headsOf(STAGE_CHANNELS, shape.headdim);
  return Math.max(STAGES * stage, 2 * CHUNK * (columns + 8 + CHUNK + 8));
}

/** How the second kernel is cut. */
interface HeadsSplit {
  readonly warps: number;
  /** Of states in a warp's memory. */
  readonly buffers: number;
  readonly sharedBytes: number;
  /** Of a multiprocessor. */
  readonly blocks: number;
  /** Heads of a block. */
  readonly group: number;
  readonly groups: number;
}

function headsShared({ stateColumns, partWidth }: ScanShape, warps: number, buffers: number): number {
  const stride = partWidth % 16 === 8 ? partWidth : partWidth + 8;
  const mine = 4 * CHUNK * stride + 2 * buffers * stateColumns * partWidth + 4 * 9 * CHUNK;
  return Math.max(4 * CHUNK * (stateColumns + 8) + 4 * WEIGHTS + warps * mine, 4 * WEIGHTS * warps);
}

function headsSplit(shape: ScanShape, multiprocessors: number): HeadsSplit | undefined {
  let best: HeadsSplit | undefined;
  let least = Infinity;
  for (const warps of [8, 4, 2, 1]) {
    for (const buffers of [2, 1]) {
      const sharedBytes = headsShared(shape, warps, buffers);
      if (sharedBytes > SHARED_BYTES) continue;
      // A thread has up to 255 registers.
      const blocks = Math.min(8 / warps, Math.floor(MULTIPROCESSOR_BYTES / (sharedBytes + 1024)));
      for (let groups = 1; groups <= shape.heads; groups++) {
        const group = Math.ceil(shape.heads / groups);
        if (Math.ceil(shape.heads / group) !== groups) continue;
        const rounds = Math.ceil(group / warps) * shape.parts;
        const waves = Math.ceil((shape.batch * chunksOf(shape) * groups) / (multiprocessors * blocks));
        // In channels of a warp: what a block does before and after its heads takes about as long as one of 24 channels,
        // and a multiprocessor with fewer warps is faster, but not as much.
        const time =
          waves * (24 + rounds * (16 + shape.partWidth) * (buffers === 2 ? 1 : 1.1)) * (0.4 + (0.6 * blocks * warps) / 8);
        if (time < 0.99 * least) [best, least] = [{ warps, buffers, sharedBytes, blocks, group, groups }, time];
      }
    }
  }
  return best;
}

/** Where things lie in the scratch memory, in bytes, and the batch rows of one group of launches. */
function layoutOf(shape: ScanShape, numbers: number, groups: number): Record<Piece | 'bytes' | 'rows', number> {
  const { batch, heads, headdim, stateColumns } = shape;
  const borders = chunksOf(shape) - 1;
  const stateBytes = 2 * borders * heads * headdim * stateColumns;
  const factorBytes = 4 * borders * heads * CHUNK;
  const weightBytes = 4 * chunksOf(shape) * groups * WEIGHTS;
  const most = Math.max(1, Math.min(batch, Math.floor(SCRATCH_BYTES / (2 * stateBytes + 2 * factorBytes + weightBytes))));
  const rows = Math.ceil(batch / Math.ceil(batch / most));
  const plan = new ScratchPlan();
  const parameters = plan.place(4 * batch * chunksOf(shape) * heads * numbers);
  const [states, adjoints] = [plan.place(rows * stateBytes), plan.place(rows * stateBytes)];
  const [xFactors, dyFactors] = [plan.place(rows * factorBytes), plan.place(rows * factorBytes)];
  const weights = plan.place(rows * weightBytes);
  return { parameters, states, adjoints, xFactors, dyFactors, weights, bytes: plan.bytes, rows };
}

type Piece = 'parameters' | 'states' | 'adjoints' | 'xFactors' | 'dyFactors' | 'weights';

/** Numbers of a head that the parameters' gradients are sums of. */
const numbersOf = (node: Node): number => 2 + (node.flag('dHasHdim') ? node.number('headdim') : 1);

/** Whether the kernels hold this shape. */
export function chunkedFits(node: Node): boolean {
  if (node.activation === 'f32') return false;
  const shape = shapeOf(node);
  const fits = [statesShared(shape, 1), gradientsShared(shape)].every((bytes) => bytes <= SHARED_BYTES);
  return fits && headsSplit(shape, node.multiprocessors) !== undefined;
}

export function chunkedScratchBytes(node: Node): number {
  const shape = shapeOf(node);
  return layoutOf(shape, numbersOf(node), headsSplit(shape, node.multiprocessors)!.groups).bytes;
}

export function chunkedLaunches(node: CudaNode): readonly CudaLaunch[] {
  const shape = shapeOf(node);
  const half = node.activation === 'f32' ? 'bf16' : node.activation;
  const split = headsSplit(shape, node.multiprocessors)!;
  const layout = layoutOf(shape, numbersOf(node), split.groups);
  const at = (name: Piece): bigint => node.scratch + BigInt(layout[name]);
  const chunks = chunksOf(shape);
  const warps = statesWarps(shape, node.multiprocessors);
  const columns = blockColumns(shape);
  const columnBlocks = shape.stateColumns / columns;
  const source = (text: string, names: readonly string[], values: Readonly<Record<string, number>>): string =>
    defines({
      T16: cType(half),
      ...Object.fromEntries(names.map((name) => [`T${name.toUpperCase()}`, typeOf(node, name)])),
      P: shape.headdim,
      N: shape.dState,
      NP: shape.stateColumns,
      ...values,
    }) +
    CHUNKED_SOURCE +
    text;
  const rows = (names: readonly string[]): readonly CudaArgument[] => names.flatMap((name) => rowOperand(node, name));
  const statesOperands = ['x', 'b', 'c', 'dt', 'dy'];
  const headsOperands = ['x', 'b', 'c', 'dt', 'dy', 'dx', 'ddt'];
  const gradientsOperands = ['x', 'b', 'c', 'dy', 'db', 'dc'];
  const perChannel = { D_PER_CHANNEL: Number(node.flag('dHasHdim')) };
  const statesBlocks = Math.max(1, Math.min(16 / warps, Math.floor(MULTIPROCESSOR_BYTES / (statesShared(shape, warps) + 1024))));
  const statesSource = source(STATES_SOURCE, statesOperands, {
    NB: columns,
    WARPS: warps,
    STAGES: STATES_STAGES,
    MIN_BLOCKS: statesBlocks,
  });
  const headsSource = source(UNIT_SOURCE + HEADS_SOURCE, headsOperands, {
    NB: shape.stateColumns,
    PW: shape.partWidth,
    PARTS: shape.parts,
    WARPS: split.warps,
    BUFFERS: split.buffers,
    MIN_BLOCKS: split.blocks,
    ...perChannel,
  });
  // Of dt it reads only what the first kernel made of it.
  const gradientsSource = source(STATE_GRADIENTS_SOURCE, [...gradientsOperands, 'dt'], { NB: columns, WARPS: 4, ...perChannel });
  const vectors = ['dtBias', 'aLog'].map((name) => node.weight(name).pointer);
  const limits = [f32(node.number('dtMin')), f32(node.number('dtMax'))];
  const launches: CudaLaunch[] = [];
  for (let start = 0; start < shape.batch; start += layout.rows) {
    const batch = Math.min(layout.rows, shape.batch - start);
    const sizes = [i32(start), i32(shape.length), i32(shape.heads)];
    if (chunks > 1) {
      launches.push({
        kind: 'kernel',
        source: statesSource,
        entry: 'chunk_states',
        grid: [Math.ceil((shape.heads * shape.headdim) / (16 * warps)), batch, 2 * columnBlocks],
        block: 32 * warps,
        sharedBytes: statesShared(shape, warps),
        args: [
          ...rows(statesOperands),
          ...vectors,
          at('states'),
          at('adjoints'),
          at('xFactors'),
          at('dyFactors'),
          ...sizes,
          ...limits,
        ],
      });
    }
    launches.push(
      {
        kind: 'kernel',
        source: headsSource,
        entry: 'chunk_heads',
        grid: [split.groups, batch, chunks],
        block: 32 * split.warps,
        sharedBytes: split.sharedBytes,
        args: [
          ...rows(headsOperands),
          ...vectors,
          node.weight('d').pointer,
          at('states'),
          at('adjoints'),
          at('weights'),
          at('parameters'),
          ...sizes,
          i32(split.group),
          ...limits,
        ],
      },
      {
        kind: 'kernel',
        source: gradientsSource,
        entry: 'state_gradients',
        grid: [2 * columnBlocks, chunks, batch],
        block: 128,
        sharedBytes: gradientsShared(shape),
        args: [
          ...rows(gradientsOperands),
          at('states'),
          at('adjoints'),
          at('xFactors'),
          at('dyFactors'),
          at('weights'),
          ...sizes,
          i32(split.groups),
        ],
      },
    );
  }
  const parameters = ['dDtBias', 'dALog', 'dD'];
  if (!parameters.some((name) => node.has(name))) return launches;
  launches.push({
    kind: 'kernel',
    source: gradientsSource,
    entry: 'add_head_sums',
    grid: [shape.heads],
    block: 128,
    args: [
      at('parameters'),
      ...parameters.map((name) => parameterOperand(node, name)),
      i32(shape.batch * chunks),
      i32(shape.heads),
    ],
  });
  return launches;
}
