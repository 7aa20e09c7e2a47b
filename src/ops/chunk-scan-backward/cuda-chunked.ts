/**
 * Launches of the scan's gradient by chunks on tensor cores, for 16-bit activations: the states at the chunks' starts,
 * then the chunks backward, then the sums over groups of heads. `cuda-adjoint-source.ts` has the maths.
 */

import { type CudaLaunch, type CudaNode, cType, defines, f32, i32, rowOperand, typeOf } from '../cuda-kernel.ts';
import { ADJOINT_SOURCE } from './cuda-adjoint-source.ts';
import { ADJOINT_UNIT_SOURCE } from './cuda-adjoint-unit-source.ts';
import { CHUNKED_SOURCE } from './cuda-chunked-source.ts';
import { STATES_SOURCE } from './cuda-states-source.ts';
import { type ScanShape, ScratchPlan, addParameters, parameterPartBytes, shapeOf, sumParts } from './cuda-units.ts';

type Node = Omit<CudaNode, 'scratch'>;

/** As in the sources. */
const CHUNK = 64;
const THREADS = 256;
const WARPS = THREADS / 32;
/** Shared memory that a block may have. */
const SHARED_BYTES = 227 * 1024;
/** Most floats of a state in a thread's registers. */
const STATE_REGISTERS = 96;
/** Rows of the state in a block of the first kernel, of which two fit a multiprocessor. */
const STATES_ROWS = 96;
/** Batches are cut so that what a group of launches leaves in scratch memory stays below this, one row at least. */
const SCRATCH_BYTES = 600 * 2 ** 20;

/** What a block has: heads, rows of the state, and how its warps share the state (see `State` in the source). */
interface Group {
  readonly heads: number;
  readonly rows: number;
  readonly warpRows: number;
  /** Of a state, in a thread. */
  readonly registers: number;
}

function groupOf({ parts, partWidth, stateColumns }: ScanShape, heads: number): Group {
  const rows = 16 * Math.ceil((heads * parts * partWidth) / 16);
  const shares = [4, 2, 1].map((warpRows) => {
    const rowTiles = Math.ceil(rows / 16 / warpRows);
    const columnBlocks = Math.ceil(stateColumns / 16 / (WARPS / warpRows));
    return { warpRows, tiles: rowTiles * columnBlocks, loads: rowTiles + columnBlocks };
  });
  const best = shares.reduce((a, b) => (b.tiles < a.tiles || (b.tiles === a.tiles && b.loads < a.loads) ? b : a));
  return { heads, rows, warpRows: best.warpRows, registers: 8 * best.tiles };
}

/** `sizeof(Memory)` of the source. */
function adjointShared({ parts, stateColumns }: ScanShape, { heads, rows, warpRows }: Group): number {
  const halves = 2 * CHUNK * (stateColumns + 8) + 2 * CHUNK * (rows + 8) + 2 * rows * (stateColumns + 8);
  const floats = 2 * 2560 + (3 + 5 * parts) * heads * CHUNK + (rows / 8) * (WARPS / warpRows) + 2 * heads;
  return 16 * Math.ceil((2 * halves + 4 * floats) / 16);
}

function statesShared({ stateColumns }: ScanShape, { heads, rows }: Group): number {
  return 4 * CHUNK * (stateColumns + 8 + rows + 8) + 8 * heads * CHUNK;
}

/** Heads of a block of the second kernel, and chunks of a segment; undefined where not even one head fits. */
interface Split extends Group {
  readonly segment: number;
  readonly segments: number;
}

function splitOf(shape: ScanShape, multiprocessors: number): Split | undefined {
  const { batch, heads: allHeads, parts, partWidth } = shape;
  const chunks = Math.ceil(shape.length / CHUNK);
  let best: Split | undefined;
  let least = Infinity;
  for (let heads = 1; heads <= allHeads; heads++) {
    const group = groupOf(shape, heads);
    if (group.registers > STATE_REGISTERS || adjointShared(shape, group) > SHARED_BYTES) break;
    for (let segments = 1; segments <= chunks; segments++) {
      const segment = Math.ceil(chunks / segments);
      if (Math.ceil(chunks / segment) !== segments) continue;
      const waves = Math.ceil((batch * Math.ceil(allHeads / heads) * segments) / multiprocessors);
      // In rows of the state: what all heads share takes about as long as two heads of 24 channels; four pairs of warps
      // have a unit each at a time; adjoints at the segments' ends are a walk over all chunks of its own.
      const chunk = 48 + 0.4 * group.rows + 0.6 * 4 * partWidth * Math.ceil((heads * parts) / 4);
      const adjoints = segments > 1 ? chunks * (16 + (0.15 * batch * allHeads * parts * partWidth) / multiprocessors) : 0;
      const time = waves * segment * chunk + adjoints;
      if (time < least) [best, least] = [{ ...group, segment, segments }, time];
    }
  }
  return best;
}

/** Heads of a block of the first kernel: two blocks for every multiprocessor, where there are enough. */
function statesGroup(shape: ScanShape, walks: number, multiprocessors: number): Group {
  let heads = 1;
  while (heads < shape.heads && groupOf(shape, heads + 1).rows <= STATES_ROWS) heads++;
  while (heads > 1 && shape.batch * Math.ceil(shape.heads / heads) * walks < 1.5 * multiprocessors) heads = Math.ceil(heads / 2);
  return groupOf(shape, heads);
}

/** Where things lie in the scratch memory, in bytes, and the batch rows of one group of launches. */
function layoutOf(
  shape: ScanShape,
  { heads, segments }: Split,
): Record<'parameters' | 'states' | 'adjoints' | 'db' | 'dc' | 'bytes' | 'rows', number> {
  const { batch, length, parts, partWidth, stateColumns } = shape;
  const oneState = 2 * shape.heads * parts * partWidth * stateColumns;
  const stateBytes = Math.ceil(length / CHUNK) * oneState;
  const adjointBytes = (segments > 1 ? segments : 0) * oneState;
  const sumBytes = 2 * Math.ceil(shape.heads / heads) * length * stateColumns;
  const most = Math.max(1, Math.min(batch, Math.floor(SCRATCH_BYTES / (stateBytes + adjointBytes + 2 * sumBytes))));
  const rows = Math.ceil(batch / Math.ceil(batch / most));
  const plan = new ScratchPlan();
  const parameters = plan.place(segments * parameterPartBytes(shape));
  const states = plan.place(rows * stateBytes);
  const adjoints = plan.place(rows * adjointBytes);
  const db = plan.place(rows * sumBytes);
  const dc = plan.place(rows * sumBytes);
  return { parameters, states, adjoints, db, dc, bytes: plan.bytes, rows };
}

/** Whether the kernels hold this shape. */
export function chunkedFits(node: Node): boolean {
  return node.activation !== 'f32' && splitOf(shapeOf(node), node.multiprocessors) !== undefined;
}

export function chunkedScratchBytes(node: Node): number {
  const shape = shapeOf(node);
  return layoutOf(shape, splitOf(shape, node.multiprocessors)!).bytes;
}

export function chunkedLaunches(node: CudaNode): readonly CudaLaunch[] {
  const shape = shapeOf(node);
  const half = node.activation === 'f32' ? 'bf16' : node.activation;
  const adjoint = splitOf(shape, node.multiprocessors)!;
  const walks = adjoint.segments > 1 ? 2 : 1;
  const states = statesGroup(shape, walks, node.multiprocessors);
  const layout = layoutOf(shape, adjoint);
  const at = (name: keyof typeof layout): bigint => node.scratch + BigInt(layout[name]);
  const define = (group: Group, names: readonly string[]): string =>
    defines({
      T16: cType(half),
      ...Object.fromEntries(names.map((name) => [`T${name.toUpperCase()}`, typeOf(node, name)])),
      P: shape.headdim,
      PARTS: shape.parts,
      PW: shape.partWidth,
      N: shape.dState,
      NP: shape.stateColumns,
      HEADS: group.heads,
      R: group.rows,
      WR: group.warpRows,
    });
  const statesSource = `${define(states, ['x', 'b', 'c', 'dt', 'dy'])}#define STATES_BLOCKS ${states.registers <= 64 ? 2 : 1}\n${CHUNKED_SOURCE}${STATES_SOURCE}`;
  const operands = ['x', 'b', 'c', 'dt', 'dy', 'dx', 'ddt'];
  const adjointSource = `${define(adjoint, operands)}#define D_PER_CHANNEL ${Number(node.flag('dHasHdim'))}\n${CHUNKED_SOURCE}${ADJOINT_UNIT_SOURCE}${ADJOINT_SOURCE}`;
  const vectors = ['dtBias', 'aLog'].map((name) => node.weight(name).pointer);
  const groups = Math.ceil(shape.heads / adjoint.heads);
  const launches: CudaLaunch[] = [];
  for (let batchStart = 0; batchStart < shape.batch; batchStart += layout.rows) {
    const batchCount = Math.min(layout.rows, shape.batch - batchStart);
    const last = [
      i32(batchStart),
      i32(shape.length),
      i32(shape.heads),
      i32(adjoint.segment),
      f32(node.number('dtMin')),
      f32(node.number('dtMax')),
    ];
    if (shape.length > CHUNK) {
      launches.push({
        kind: 'kernel',
        source: statesSource,
        entry: 'chunk_states',
        grid: [Math.ceil(shape.heads / states.heads), batchCount, walks],
        block: THREADS,
        sharedBytes: statesShared(shape, states),
        args: [
          ...['x', 'b', 'c', 'dt', 'dy'].flatMap((name) => rowOperand(node, name)),
          ...vectors,
          at('states'),
          at('adjoints'),
          ...last,
        ],
      });
    }
    launches.push(
      {
        kind: 'kernel',
        source: adjointSource,
        entry: 'chunk_adjoint',
        grid: [groups, batchCount, adjoint.segments],
        block: THREADS,
        sharedBytes: adjointShared(shape, adjoint),
        args: [
          ...operands.flatMap((name) => rowOperand(node, name)),
          ...vectors,
          node.weight('d').pointer,
          at('states'),
          at('adjoints'),
          at('db'),
          at('dc'),
          at('parameters'),
          ...last,
        ],
      },
      sumParts(node, shape, half, { dbParts: at('db'), dcParts: at('dc'), batchStart, batchCount, count: groups }),
    );
  }
  return [...launches, ...addParameters(node, shape, half, at('parameters'), adjoint.segments)];
}
