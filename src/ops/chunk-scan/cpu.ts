/** CPU calls of the chunk scan: step by step when short, by chunks otherwise. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CpuArgument, type CpuCall, type CpuKernel, type CpuNode, call, f32 } from '../cpu-kernel.ts';

type Node = Omit<CpuNode, 'scratch'>;

/** Where the thread memory and the results of the first call lie in the scratch memory, in bytes. */
interface Layout {
  readonly own: number;
  readonly ownBytes: number;
  readonly bytes: number;
}

function layoutOf(node: Node): Layout {
  const ownBytes = 4 * 4 * paddedColumns(node.buffer('b').width);
  return { own: 0, ownBytes, bytes: node.threads * ownBytes };
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
      panels: 0,
      inputs: 0,
      steps: 0,
      decays: 0,
      own: node.scratch + layout.own,
      ownBytes: layout.ownBytes,
    });
    const calls: CpuCall[] = [call('chunk_scan_step', args(0, node.number('batch')))];
    return calls;
  },
};
