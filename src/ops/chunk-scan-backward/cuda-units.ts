/** How the CUDA kernels of the scan's gradient cut heads into units, and the sums that the recurrent ones end with. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaElement, type CudaNode, type KernelLaunch, cType, defines, i32, parameterOperand } from '../cuda-kernel.ts';
import { SUMS_SOURCE } from './cuda-sums-source.ts';

/** Most channels of a unit: what a thread or warp holds of a head in registers. */
const UNIT_CHANNELS = 32;

export interface ScanShape {
  readonly batch: number;
  readonly length: number;
  readonly heads: number;
  readonly headdim: number;
  readonly dState: number;
  /** Columns of the state in scratch memory: a multiple of 16. */
  readonly stateColumns: number;
  /** Units of a head, and the channels of one: a multiple of 8, the last unit of a head may have fewer. */
  readonly parts: number;
  readonly partWidth: number;
}

export function shapeOf(node: Omit<CudaNode, 'scratch'>): ScanShape {
  const headdim = node.number('headdim');
  const dState = node.buffer('b').width;
  const parts = Math.ceil(headdim / UNIT_CHANNELS);
  return {
    batch: node.number('batch'),
    length: node.number('length'),
    heads: node.buffer('dt').width,
    headdim,
    dState,
    stateColumns: paddedColumns(dState),
    parts,
    partWidth: 8 * Math.ceil(headdim / parts / 8),
  };
}

/** Places pieces of scratch memory one after the other. */
export class ScratchPlan {
  bytes = 0;

  place(size: number): number {
    const at = this.bytes;
    this.bytes += 256 * Math.ceil(size / 256);
    return at;
  }
}

/** Bytes of what `add_parameters` adds up. */
export function parameterPartBytes({ batch, heads, parts, partWidth }: ScanShape): number {
  return 4 * batch * heads * parts * (2 + partWidth);
}

function sumsSource(node: CudaNode, shape: ScanShape, part: CudaElement): string {
  const element = (name: string): string => cType(node.buffer(name).element);
  const values = {
    TPART: cType(part),
    TDB: element('db'),
    TDC: element('dc'),
    TDDT: element('ddt'),
    N: shape.dState,
    NS: shape.stateColumns,
    P: shape.headdim,
    PARTS: shape.parts,
    PW: shape.partWidth,
  };
  return defines(values) + SUMS_SOURCE;
}

/** db and dc of `batchCount` sequences: sums of `count` parts each. */
export function sumParts(
  node: CudaNode,
  shape: ScanShape,
  part: CudaElement,
  sums: { dbParts: bigint; dcParts: bigint; batchStart: number; batchCount: number; count: number },
): KernelLaunch {
  const db = node.buffer('db');
  const dc = node.buffer('dc');
  const rows = sums.batchCount * shape.length;
  return {
    kind: 'kernel',
    source: sumsSource(node, shape, part),
    entry: 'sum_parts',
    grid: [Math.ceil((rows * shape.stateColumns) / 8 / 256), 2],
    block: 256,
    args: [
      sums.dbParts,
      sums.dcParts,
      db.pointer,
      i32(db.stride),
      dc.pointer,
      i32(dc.stride),
      i32(sums.batchStart * shape.length),
      i32(rows),
      i32(sums.count),
    ],
  };
}

/** ddt of `batchCount` sequences from (rows, heads, parts). */
export function sumSteps(
  node: CudaNode,
  shape: ScanShape,
  part: CudaElement,
  sums: { parts: bigint; batchStart: number; batchCount: number },
): KernelLaunch {
  const ddt = node.buffer('ddt');
  const rows = sums.batchCount * shape.length;
  return {
    kind: 'kernel',
    source: sumsSource(node, shape, part),
    entry: 'sum_steps',
    grid: [Math.ceil((rows * paddedColumns(shape.heads)) / 256)],
    block: 256,
    args: [sums.parts, ddt.pointer, i32(ddt.stride), i32(sums.batchStart * shape.length), i32(rows), i32(shape.heads)],
  };
}

/** Gradients of the parameters that are there, from (batch, heads, parts, 2 + part width). */
export function addParameters(node: CudaNode, shape: ScanShape, part: CudaElement, parts: bigint): readonly KernelLaunch[] {
  if (!['dDtBias', 'dALog', 'dD'].some((name) => node.has(name))) return [];
  return [
    {
      kind: 'kernel',
      source: sumsSource(node, shape, part),
      entry: 'add_parameters',
      grid: [shape.heads],
      block: 128,
      args: [
        parts,
        parameterOperand(node, 'dDtBias'),
        parameterOperand(node, 'dALog'),
        parameterOperand(node, 'dD'),
        i32(Number(node.flag('dHasHdim'))),
        i32(shape.batch),
        i32(shape.heads),
      ],
    },
  ];
}
