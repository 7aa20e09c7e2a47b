/** The dispatches that the scan and its gradient share: coefficients and products, states of chunks, passing them on. */

import { type WebGpuConstants, type WebGpuDispatch, type WebGpuNode, arena, rowConstants, states } from '../webgpu-kernel.ts';
import {
  ARENA_SOURCE,
  CHUNK,
  COLUMNS_SOURCE,
  LENGTHS_SOURCE,
  STATE_COLUMNS_SOURCE,
  STEP_SOURCE,
  type ScanShape,
  dtLimits,
  parameterBindings,
  sequenceConstants,
} from './webgpu-parts.ts';
import { PREPARED_HEADS, PREPARE_SOURCE, PRODUCT_BLOCKS } from './webgpu-prepare.ts';
import { CHUNK_STATES_SOURCE, passStatesSource, stateTile } from './webgpu-states.ts';

/** Sequences that are scanned together. */
export interface ScanGroup {
  readonly first: number;
  readonly count: number;
}

/** Where a group's working values lie, in vectors. */
export interface ScanPlaces {
  readonly coefficients: number;
  readonly products: number;
}

/** Floats of coefficients, of products and of states that a sequence takes. */
export function scanFloats({ chunks, heads, columns, stateColumns }: ScanShape) {
  return {
    coefficients: 4 * CHUNK * chunks * heads,
    products: CHUNK * CHUNK * chunks,
    states: chunks * stateColumns * columns,
  };
}

/** What all kernels over chunks are told. */
export function chunkConstants(shape: ScanShape, { first }: ScanGroup, { coefficients, products }: ScanPlaces): WebGpuConstants {
  const { length, chunks, heads, headdim, dState, stateColumns, width, columns } = shape;
  return { firstSequence: first, length, chunks, heads, headdim, dState, stateColumns, width, columns, coefficients, products };
}

export function prepareDispatch(
  node: WebGpuNode,
  shape: ScanShape,
  group: ScanGroup,
  places: ScanPlaces,
  [row, column]: readonly ['b', 'c'] | readonly ['c', 'b'],
): WebGpuDispatch {
  const headGroups = Math.ceil(shape.heads / PREPARED_HEADS);
  const rows = node.buffer(row);
  const columns = node.buffer(column);
  return {
    kind: 'dispatch',
    source: ARENA_SOURCE + LENGTHS_SOURCE + STEP_SOURCE + STATE_COLUMNS_SOURCE + PREPARE_SOURCE,
    entry: 'scan_prepare',
    workgroups: [headGroups + PRODUCT_BLOCKS, shape.chunks, group.count],
    bindings: [arena('vec4<f32>'), ...parameterBindings(node)],
    constants: {
      ...chunkConstants(shape, group, places),
      ...rowConstants(node, 'dt'),
      ...dtLimits(node),
      ...sequenceConstants(node),
      headGroups,
      upper: Number(row === 'b'),
      row: rows.offset,
      rowStride: rows.stride,
      column: columns.offset,
      columnStride: columns.stride,
    },
  };
}

/** What chunks add to the state, or to its gradient; `statesAt` in vectors. */
export function chunkStatesDispatch(
  node: WebGpuNode,
  shape: ScanShape,
  group: ScanGroup,
  places: ScanPlaces,
  statesAt: number,
  backwards: boolean,
  chunks: { readonly first: number; readonly count: number },
): WebGpuDispatch {
  const tile = stateTile(shape.stateColumns);
  const stateTiles = Math.ceil(shape.stateColumns / tile.stateColumns);
  const x = node.buffer(backwards ? 'dy' : 'x');
  const b = node.buffer(backwards ? 'c' : 'b');
  return {
    kind: 'dispatch',
    source: COLUMNS_SOURCE + STATE_COLUMNS_SOURCE + CHUNK_STATES_SOURCE,
    entry: 'scan_chunk_states',
    workgroups: [Math.ceil(shape.columns / tile.columns) * stateTiles, chunks.count, group.count],
    bindings: [arena('vec4<f32>')],
    constants: {
      ...chunkConstants(shape, group, places),
      states: statesAt,
      stateTiles,
      shift: Math.log2(tile.columns / 4),
      backwards: Number(backwards),
      firstChunk: chunks.first,
      x: x.offset,
      xStride: x.stride,
      b: b.offset,
      bStride: b.stride,
    },
  };
}

export function passStatesDispatch(
  node: WebGpuNode,
  shape: ScanShape,
  group: ScanGroup,
  places: ScanPlaces,
  statesAt: number,
  backwards: boolean,
): WebGpuDispatch {
  const carried = node.has('state');
  const { dState, columns, stateColumns } = shape;
  return {
    kind: 'dispatch',
    source: ARENA_SOURCE + COLUMNS_SOURCE + passStatesSource(carried, backwards, dState % 4 === 0),
    entry: 'scan_pass_states',
    workgroups: [Math.ceil((columns * stateColumns) / 16 / 64), group.count],
    bindings: [arena('vec4<f32>'), ...(carried ? [states(dState % 4 === 0 ? 'vec4<f32>' : 'f32')] : [])],
    constants: { ...chunkConstants(shape, group, places), ...sequenceConstants(node), states: statesAt },
  };
}
