/** dWeight[ids[t]] += dy[t], tokens x D into (V, D), by sorting the tokens: see `cuda-source.ts`. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, type CudaNode, cType, defines, i32 } from '../cuda-kernel.ts';
import { rowArguments } from '../cuda-vectors.ts';
import { CHUNK, EMBEDDING_BACKWARD_SOURCE, TILE } from './cuda-source.ts';

/** Sizes and the places in the scratch memory, in bytes. */
function layout(node: CudaNode) {
  const { rows: tokens, width } = node.buffer('dy');
  const columns = paddedColumns(width);
  const chunks = Math.ceil(tokens / CHUNK);
  const tiles = Math.ceil(tokens / TILE);
  const ids = 8 * chunks * CHUNK;
  const positions = ids + 4 * chunks * CHUNK;
  const partials = positions + 4 * chunks * CHUNK;
  return { tokens, width, columns, chunks, tiles, ids, positions, partials, bytes: partials + 4 * 2 * tiles * columns };
}

export const embeddingBackwardCuda: CudaKernel = {
  scratchBytes: (node) => layout(node).bytes,
  launches(node) {
    const { tokens, width, columns, chunks, tiles, ...places } = layout(node);
    const dy = node.buffer('dy');
    const dWeight = node.weight('dWeight');
    const keys = node.scratch;
    const [ids, positions, partials] = [places.ids, places.positions, places.partials].map((at) => keys + BigInt(at));
    const source = defines({ CHUNK, TILE, DY_TYPE: cType(dy.element) }) + EMBEDDING_BACKWARD_SOURCE;
    const table = [dWeight.pointer, i32(dWeight.stride)];
    const sizes = [i32(tiles), i32(width), i32(columns)];
    const block = Math.min(256, 32 * Math.ceil(columns / 128));
    return [
      {
        kind: 'kernel',
        source,
        entry: 'sort_chunks',
        grid: [chunks],
        block: CHUNK / 2,
        args: [node.buffer('ids').pointer, i32(tokens), i32(dWeight.shape[0]!), keys],
      },
      {
        kind: 'kernel',
        source,
        entry: 'merge_chunks',
        grid: [(chunks * CHUNK) / 128],
        block: 128,
        args: [keys, i32(chunks), ids!, positions!],
      },
      {
        kind: 'kernel',
        source,
        entry: 'sum_tiles',
        grid: [tiles, Math.ceil(columns / (4 * block))],
        block,
        args: [ids!, positions!, ...rowArguments(dy), ...table, partials!, ...sizes],
      },
      {
        kind: 'kernel',
        source,
        entry: 'join_tiles',
        grid: [tiles, Math.ceil(columns / 128)],
        block: 256,
        args: [ids!, ...table, partials!, ...sizes],
      },
    ];
  },
};
