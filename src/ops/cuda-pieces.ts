/**
 * One launch over all parameters of a model: a table cuts their float32 buffers into pieces of one size, a block for each.
 * An entry of the table is an address in each of the buffers, then the number of floats and a flag (32 bits each).
 */

import type { CudaWeight } from './cuda-kernel.ts';

/** Floats of a float32 parameter buffer as it is stored, padding included. */
export function bufferFloats({ layout, shape, stride }: CudaWeight): number {
  return layout === 'matrix' ? shape[0]! * stride : shape.reduce((a, b) => a * b, 1);
}

/** Buffers of one parameter, all of one storage layout. */
export interface PieceSource {
  readonly buffers: readonly CudaWeight[];
  readonly flag?: boolean;
}

export function pieceCount(weight: CudaWeight, pieceFloats: number): number {
  return Math.ceil(bufferFloats(weight) / pieceFloats);
}

/** The table of all pieces, in order. */
export function pieceTable(sources: readonly PieceSource[], pieceFloats: number): { table: Uint8Array; pieces: number } {
  const pieces = sources.reduce((sum, { buffers }) => sum + pieceCount(buffers[0]!, pieceFloats), 0);
  const table = new Uint8Array(pieces * (8 * (sources[0]?.buffers.length ?? 0) + 8));
  const view = new DataView(table.buffer);
  let at = 0;
  for (const { buffers, flag } of sources) {
    const floats = bufferFloats(buffers[0]!);
    for (let first = 0; first < floats; first += pieceFloats) {
      for (const { pointer } of buffers) {
        view.setBigUint64(at, pointer + BigInt(4 * first), true);
        at += 8;
      }
      view.setUint32(at, Math.min(pieceFloats, floats - first), true);
      view.setUint32(at + 4, flag ? 1 : 0, true);
      at += 8;
    }
  }
  return { table, pieces };
}
