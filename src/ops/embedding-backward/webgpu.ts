/** dWeight[ids[t]] += dy[t], tokens x D into (V, D), by sorting the tokens: see `webgpu-source.ts`. */

import { paddedColumns } from '../../graph/graph.ts';
import { type WebGpuDispatch, type WebGpuKernel, type WebGpuNode, arena, fold, rowConstants, writes } from '../webgpu-kernel.ts';
import {
  CHUNK,
  JOIN_ACROSS,
  JOIN_SOURCE,
  MERGE_SOURCE,
  SORT_LANES,
  SORT_SOURCE,
  SUM_LANES,
  SUM_SOURCE,
  TILE,
} from './webgpu-source.ts';

/** Sizes and the places in the scratch memory, in floats: sorted tokens, those of each chunk, the partial sums. */
function layout(node: WebGpuNode) {
  const { rows: tokens, width } = node.buffer('dy');
  const columns = paddedColumns(width);
  const chunks = Math.ceil(tokens / CHUNK);
  const tiles = Math.ceil(tokens / TILE);
  const sorted = chunks * CHUNK;
  const inChunks = chunks > 1 ? 2 * sorted : 0;
  const partials = inChunks + 2 * sorted;
  return { tokens, width, columns, chunks, tiles, sorted, inChunks, partials, floats: partials + 2 * tiles * columns };
}

/** Sorted ids and positions of all tokens. */
function sorting(node: WebGpuNode): WebGpuDispatch[] {
  const { tokens, chunks, sorted, inChunks } = layout(node);
  const ids = node.scratch;
  const positions = ids + sorted;
  const bindings = [arena('u32')];
  const sort: WebGpuDispatch = {
    kind: 'dispatch',
    source: SORT_SOURCE,
    entry: 'sort_chunks',
    workgroups: fold(chunks),
    bindings,
    constants: {
      given: node.buffer('ids').offset,
      tokens,
      vocabulary: node.weight('dWeight').shape[0]!,
      chunks,
      ids: ids + inChunks,
      positions: positions + inChunks,
    },
  };
  if (chunks === 1) return [sort];
  const merge: WebGpuDispatch = {
    kind: 'dispatch',
    source: MERGE_SOURCE,
    entry: 'merge_chunks',
    workgroups: fold((chunks * CHUNK) / SORT_LANES),
    bindings,
    constants: { chunks, sortedIds: ids + inChunks, sortedPositions: positions + inChunks, ids, positions },
  };
  return [sort, merge];
}

export const embeddingBackwardWebGpu: WebGpuKernel = {
  scratchFloats: (node) => layout(node).floats,
  dispatches(node) {
    const { tokens, width, columns, tiles, sorted, partials } = layout(node);
    const weight = node.weight('dWeight');
    const summing = weight.parts.flatMap(({ values, firstRow, rows }): WebGpuDispatch[] => {
      const bindings = [arena('vec4<f32>'), writes('table', values, 'vec4<f32>')];
      const constants = {
        ...rowConstants(node, 'dy'),
        ids: node.scratch,
        positions: node.scratch + sorted,
        partials: node.scratch + partials,
        last: tokens - 1,
        tiles,
        width,
        columns,
        tableStride: weight.stride,
        firstRow,
        partRows: rows,
      };
      const dispatch = (entry: string, source: string, slices: number): WebGpuDispatch => ({
        kind: 'dispatch',
        source,
        entry,
        workgroups: fold(tiles * slices),
        bindings,
        constants: { ...constants, slices },
      });
      return [
        dispatch('sum_tiles', SUM_SOURCE, Math.ceil(columns / (4 * SUM_LANES))),
        dispatch('join_tiles', JOIN_SOURCE, Math.ceil(columns / (4 * JOIN_ACROSS))),
      ];
    });
    return [...sorting(node), ...summing];
  },
};
