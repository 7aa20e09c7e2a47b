/** CPU calls of the chunk scan: step by step when short, by chunks otherwise. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CpuArgument, type CpuCall, type CpuKernel, type CpuNode, call, f32 } from '../cpu-kernel.ts';

type Node = Omit<CpuNode, 'scratch'>;

/** As in `arguments.as.ts` and `chunk.as.ts`. */
const CHUNK = 32;
const BLOCK_CHANNELS = 64;
const BLOCK_HEADER_BYTES = 64;
/** Calls up to this long go step by step. */
const LONGEST_BY_STEPS = 4;
/** Batches are cut so that what the first call of the two prepares stays below this, one row at least. */
const PREPARED_BYTES = 8 * 2 ** 20;

const round4 = (n: number): number => 4 * Math.ceil(n / 4);
const align = (bytes: number): number => 256 * Math.ceil(bytes / 256);

/** Where what `chunk_scan_prepare` writes and the threads' own memory lie in the scratch memory, in bytes. */
interface Layout {
  readonly panels: number;
  readonly inputs: number;
  readonly steps: number;
  readonly decays: number;
  readonly own: number;
  readonly ownBytes: number;
  readonly bytes: number;
  /** Batch rows of one pair of calls. */
  readonly rows: number;
}

function layoutOf(node: Node): Layout {
  const length = node.number('length');
  const dState = node.buffer('b').width;
  if (length <= LONGEST_BY_STEPS) {
    const ownBytes = align(32 * length + 4 * 4 * paddedColumns(dState));
    return {
      panels: 0,
      inputs: 0,
      steps: 0,
      decays: 0,
      own: 0,
      ownBytes,
      bytes: node.threads * ownBytes,
      rows: node.number('batch'),
    };
  }
  const panelBytes = Math.ceil(length / 4) * 16 * (round4(dState) + CHUNK);
  const inputBytes = Math.ceil(length / CHUNK) * 4 * CHUNK * round4(dState);
  const headBytes = length * 4 * round4(node.buffer('dt').width);
  const rows = Math.max(
    1,
    Math.min(node.number('batch'), Math.floor(PREPARED_BYTES / (panelBytes + inputBytes + 2 * headBytes))),
  );
  const inputs = align(rows * panelBytes);
  const steps = inputs + align(rows * inputBytes);
  const decays = steps + align(rows * headBytes);
  const own = decays + align(rows * headBytes);
  const ownBytes = align(BLOCK_HEADER_BYTES + 4 * BLOCK_CHANNELS * (round4(dState) + 4 * CHUNK + 3));
  return { panels: 0, inputs, steps, decays, own, ownBytes, bytes: own + node.threads * ownBytes, rows };
}

export const chunkScanCpu: CpuKernel = {
  scratchBytes: (node) => layoutOf(node).bytes,
  calls(node) {
    const layout = layoutOf(node);
    const x = node.buffer('x');
    const b = node.buffer('b');
    const c = node.buffer('c');
    const dt = node.buffer('dt');
    const y = node.buffer('y');
    const state = node.has('state') ? node.state('state') : undefined;
    const args = (batchStart: number, batchCount: number): Record<string, CpuArgument> => ({
      x: x.pointer,
      xStride: x.stride,
      b: b.pointer,
      bStride: b.stride,
      c: c.pointer,
      cStride: c.stride,
      dt: dt.pointer,
      dtStride: dt.stride,
      y: y.pointer,
      yStride: y.stride,
      dtBias: node.weight('dtBias').pointer,
      aLog: node.weight('aLog').pointer,
      d: node.weight('d').pointer,
      dHasHdim: Number(node.flag('dHasHdim')),
      dtMin: f32(node.number('dtMin')),
      dtMax: f32(node.number('dtMax')),
      slotTable: state ? state.slotTable : 0,
      slots: node.has('slots') ? node.buffer('slots').pointer : 0,
      lengths: node.has('lengths') ? node.buffer('lengths').pointer : 0,
      stateOffset: state ? state.offset : 0,
      batchStart,
      batchCount,
      length: node.number('length'),
      heads: dt.width,
      headdim: node.number('headdim'),
      dState: b.width,
      panels: node.scratch + layout.panels,
      inputs: node.scratch + layout.inputs,
      steps: node.scratch + layout.steps,
      decays: node.scratch + layout.decays,
      own: node.scratch + layout.own,
      ownBytes: layout.ownBytes,
    });
    const batch = node.number('batch');
    if (node.number('length') <= LONGEST_BY_STEPS) return [call('chunk_scan_step', args(0, batch))];
    const calls: CpuCall[] = [];
    for (let first = 0; first < batch; first += layout.rows) {
      const group = args(first, Math.min(layout.rows, batch - first));
      calls.push(call('chunk_scan_prepare', group), call('chunk_scan', group));
    }
    return calls;
  },
};
