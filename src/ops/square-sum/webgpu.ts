/** Sum of squares of a float32 buffer: a partial sum for every piece of it, then their sum; short buffers at once. */

import { paddedColumns } from '../../graph/graph.ts';
import { type WebGpuDispatch, type WebGpuKernel, type WebGpuNode, arena, fold, reads } from '../webgpu-kernel.ts';
import { BLOCK, INVOCATION, SUM_SOURCE } from '../webgpu-rows.ts';
import { partFloats } from '../webgpu-parameters.ts';

/** Vectors of 4 floats that a workgroup sums. */
const PIECE = 4096;

/** x: vectors of one part of the buffer, its padding zero. y = before + sum, with the columns that pad it. */
const SOURCE = `
fn piece_sum(piece: u32, lane: u32) -> f32 {
  let first = piece * ${PIECE}u;
  let end = min(first + ${PIECE}u, c.vectors);
  var sums = vec4<f32>();
  for (var i = first + lane; i < end; i += ${BLOCK}u) {
    let v = x[i];
    sums += v * v;
  }
  return group_sum((sums.x + sums.y) + (sums.z + sums.w), lane);
}

fn store(sum: f32, lane: u32) {
  if (lane >= c.columns) { return; }
  var y = 0.0;
  if (lane == 0u) {
    y = sum;
    if (c.chained != 0u) { y += arena[c.before]; }
  }
  arena[c.y + lane] = y;
}
`;

const PIECES = `
@compute @workgroup_size(${BLOCK})
fn square_sum_pieces(${INVOCATION}) {
  let piece = folded(wid, count);
  if (piece >= c.pieces) { return; }
  let sum = piece_sum(piece, lane);
  if (lane == 0u) { arena[c.partials + piece] = sum; }
}
`;

const WHOLE = `
@compute @workgroup_size(${BLOCK})
fn square_sum(@builtin(local_invocation_index) lane: u32) { store(piece_sum(0u, lane), lane); }
`;

const TOTAL = `
@compute @workgroup_size(${BLOCK})
fn square_sum_total(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < c.pieces; i += ${BLOCK}u) { sum += arena[c.partials + i]; }
  store(group_sum(sum, lane), lane);
}
`;

/** The parts of the buffer with their vectors and pieces. */
function partsOf(node: WebGpuNode) {
  const weight = node.weight('x');
  return weight.parts.map((part) => {
    const vectors = Math.ceil(partFloats(weight, part) / 4);
    return { values: part.values, vectors, pieces: Math.ceil(vectors / PIECE) };
  });
}

export const squareSumWebGpu: WebGpuKernel = {
  scratchFloats(node) {
    const pieces = partsOf(node).reduce((sum, part) => sum + part.pieces, 0);
    return pieces > 1 ? pieces : 0;
  },
  dispatches(node) {
    const parts = partsOf(node);
    const all = parts.reduce((sum, { pieces }) => sum + pieces, 0);
    const y = node.buffer('y');
    const constants = {
      before: node.has('before') ? node.buffer('before').offset : 0,
      chained: node.has('before') ? 1 : 0,
      y: y.offset,
      columns: paddedColumns(y.width),
    };
    const summing = (entry: string, source: string) => ({ kind: 'dispatch', entry, source: SUM_SOURCE + source }) as const;
    let first = 0;
    const dispatches: WebGpuDispatch[] = parts.map(({ values, vectors, pieces }) => {
      const partials = node.scratch + first;
      first += pieces;
      return {
        ...(all > 1 ? summing('square_sum_pieces', SOURCE + PIECES) : summing('square_sum', SOURCE + WHOLE)),
        workgroups: fold(pieces),
        bindings: [arena(), reads('x', values, 'vec4<f32>')],
        constants: { ...constants, vectors, pieces, partials },
      };
    });
    if (all > 1) {
      dispatches.push({
        ...summing('square_sum_total', SOURCE + TOTAL),
        workgroups: [1],
        bindings: [arena(), reads('x', parts[0]!.values, 'vec4<f32>')],
        constants: { ...constants, vectors: 0, pieces: all, partials: node.scratch },
      });
    }
    return dispatches;
  },
};
