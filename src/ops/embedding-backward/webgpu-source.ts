/**
 * Adding token gradients to the rows of a table, always in the order of positions, without atomics: tokens are sorted by
 * (id, position), and runs of one id are summed.
 *
 * 1. `sort_chunks`: a workgroup sorts the ids of CHUNK tokens with their positions by a bitonic network (Batcher 1968);
 *    ids outside the table get the largest.
 * 2. `merge_chunks`: a token's place among all is the number of those before it in every chunk, by binary search: smaller
 *    ids, and equal ones of the chunks before its own. Not needed for one chunk.
 * 3. `sum_tiles`: a workgroup walks TILE sorted tokens. A run of one id inside the tile is added to its row; the sum of a
 *    run that reaches over the tile's start (`head`) or end (`tail`) is kept apart.
 * 4. `join_tiles`: where a run's tail is, it and the heads of the tiles after it are added to the row.
 *
 * A table in several parts takes 3 and 4 once for each, over the ids of its rows.
 */

import { INVOCATION, ROWS_SOURCE } from '../webgpu-rows.ts';

export const CHUNK = 1024;
export const TILE = 16;
/** Invocations of `sort_chunks` and `merge_chunks`. */
export const SORT_LANES = 256;
/** Invocations of `sum_tiles`, 4 columns each. */
export const SUM_LANES = 64;
/** `join_tiles`: vectors of 4 columns of a workgroup, and the invocations that share the tiles of a run. */
export const JOIN_ACROSS = 16;
export const JOIN_SHARES = 16;

const NONE = '0xffffffffu';

/** The arena is `array<u32>`. ids, positions: CHUNK of them for each chunk. */
export const SORT_SOURCE = `
var<workgroup> cells: array<vec2<u32>, ${CHUNK}>;

@compute @workgroup_size(${SORT_LANES})
fn sort_chunks(${INVOCATION}) {
  let chunk = folded(wid, count);
  if (chunk >= c.chunks) { return; }
  let first = chunk * ${CHUNK}u;
  for (var i = lane; i < ${CHUNK}u; i += ${SORT_LANES}u) {
    var id = ${NONE};
    if (first + i < c.tokens) { id = arena[c.given + first + i]; }
    if (id >= c.vocabulary) { id = ${NONE}; }
    cells[i] = vec2<u32>(id, first + i);
  }
  for (var size = 2u; size <= ${CHUNK}u; size *= 2u) {
    for (var stride = size / 2u; stride > 0u; stride /= 2u) {
      workgroupBarrier();
      for (var pair = lane; pair < ${CHUNK / 2}u; pair += ${SORT_LANES}u) {
        let i = 2u * pair - (pair & (stride - 1u));
        let left = cells[i];
        let right = cells[i + stride];
        let greater = left.x > right.x || (left.x == right.x && left.y > right.y);
        if (greater == ((i & size) == 0u)) {
          cells[i] = right;
          cells[i + stride] = left;
        }
      }
    }
  }
  workgroupBarrier();
  for (var i = lane; i < ${CHUNK}u; i += ${SORT_LANES}u) {
    arena[c.ids + first + i] = cells[i].x;
    arena[c.positions + first + i] = cells[i].y;
  }
}
`;

export const MERGE_SOURCE = `
@compute @workgroup_size(${SORT_LANES})
fn merge_chunks(${INVOCATION}) {
  let at = folded(wid, count) * ${SORT_LANES}u + lane;
  if (at >= c.chunks * ${CHUNK}u) { return; }
  let id = arena[c.sortedIds + at];
  let own = at / ${CHUNK}u;
  var place = 0u;
  for (var chunk = 0u; chunk < c.chunks; chunk++) {
    if (chunk == own) {
      place += at % ${CHUNK}u;
      continue;
    }
    /* How many are before: the first of them that is not, in halves. */
    let start = c.sortedIds + chunk * ${CHUNK}u;
    var below = 0u;
    for (var step = ${CHUNK / 2}u; step > 0u; step /= 2u) {
      let other = arena[start + below + step - 1u];
      if (other < id || (chunk < own && other == id)) { below += step; }
    }
    let other = arena[start + below];
    place += below + select(0u, 1u, other < id || (chunk < own && other == id));
  }
  arena[c.ids + place] = id;
  arena[c.positions + place] = arena[c.sortedPositions + at];
}
`;

/**
 * The arena is `array<vec4<f32>>`, `table` the part of the gradient. partials: (tiles, 2, columns), heads and tails;
 * `c.last`: the last place of a sorted token.
 */
const TILES = `
fn word(i: u32) -> u32 { return bitcast<u32>(arena[i / 4u][i % 4u]); }
/* The id at a place, another one than any behind the last. */
fn id_at(place: u32) -> u32 {
  if (place > c.last) { return ${NONE}; }
  return word(c.ids + place);
}
fn in_part(id: u32) -> bool { return id >= c.firstRow && id - c.firstRow < c.partRows; }
fn add_to_row(id: u32, column: u32, sum: vec4<f32>) {
  let i = ((id - c.firstRow) * c.tableStride + column) / 4u;
  table[i] = masked(table[i] + sum, column, c.width);
}
`;

export const SUM_SOURCE = `${ROWS_SOURCE}${TILES}
@compute @workgroup_size(${SUM_LANES})
fn sum_tiles(${INVOCATION}) {
  let group = folded(wid, count);
  let tile = group / c.slices;
  if (tile >= c.tiles) { return; }
  let column = 4u * ((group % c.slices) * ${SUM_LANES}u + lane);
  if (column >= c.columns) { return; }
  let first = tile * ${TILE}u;
  var before = ${NONE};
  if (first > 0u) { before = id_at(first - 1u); }
  var sum = vec4<f32>();
  var id = id_at(first);
  for (var i = 0u; i < ${TILE}u && id != ${NONE}; i++) {
    let next = id_at(first + i + 1u);
    let ends = next != id;
    if (in_part(id)) {
      sum += arena[at(c.dy, c.dyStride, word(c.positions + first + i), column)];
      if (ends || i == ${TILE - 1}u) {
        if (id == before) {
          arena[at(c.partials, c.columns, 2u * tile, column)] = sum;
        } else if (!ends) {
          arena[at(c.partials, c.columns, 2u * tile + 1u, column)] = sum;
        } else {
          add_to_row(id, column, sum);
        }
        sum = vec4<f32>();
      }
    }
    id = next;
  }
}
`;

export const JOIN_SOURCE = `${ROWS_SOURCE}${TILES}
var<workgroup> run: u32;
var<workgroup> sums: array<vec4<f32>, ${JOIN_ACROSS * JOIN_SHARES}>;

/* Tiles after this one that go on with the run that begins in it and has a tail there. */
fn tiles_of_run(tile: u32) -> u32 {
  let end = (tile + 1u) * ${TILE}u;
  let id = id_at(end - 1u);
  if (id == ${NONE} || !in_part(id) || id_at(end) != id) { return 0u; }
  if (tile > 0u && id_at(end - ${TILE + 1}u) == id) { return 0u; }
  /* Ids are sorted: the last tile that begins with this one, in halves. */
  var last = tile + 1u;
  var beyond = c.tiles;
  while (beyond - last > 1u) {
    let middle = (last + beyond) / 2u;
    if (id_at(middle * ${TILE}u) == id) { last = middle; } else { beyond = middle; }
  }
  return last - tile;
}

@compute @workgroup_size(${JOIN_ACROSS * JOIN_SHARES})
fn join_tiles(${INVOCATION}) {
  let group = folded(wid, count);
  let tile = group / c.slices;
  if (tile >= c.tiles) { return; }
  if (lane == 0u) { run = tiles_of_run(tile); }
  let tiles = workgroupUniformLoad(&run);
  if (tiles == 0u) { return; }
  let share = lane / ${JOIN_ACROSS}u;
  let column = 4u * ((group % c.slices) * ${JOIN_ACROSS}u + lane % ${JOIN_ACROSS}u);
  var sum = vec4<f32>();
  if (column < c.columns) {
    for (var i = share; i < tiles; i += ${JOIN_SHARES}u) {
      sum += arena[at(c.partials, c.columns, 2u * (tile + 1u + i), column)];
    }
  }
  sums[lane] = sum;
  workgroupBarrier();
  if (share != 0u || column >= c.columns) { return; }
  for (var i = 1u; i < ${JOIN_SHARES}u; i++) { sum += sums[i * ${JOIN_ACROSS}u + lane]; }
  sum += arena[at(c.partials, c.columns, 2u * tile + 1u, column)];
  add_to_row(id_at((tile + 1u) * ${TILE}u - 1u), column, sum);
}
`;
