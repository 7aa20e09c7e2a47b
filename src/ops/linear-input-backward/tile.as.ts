/**
 * The tile of the backward products, and the packing they share. Both operands are packed, [depth][4] and [depth][8]:
 * one pointer each. Reading the rows of dy where they lie, as the forward product does, reached 42 GFLOP/s on one core
 * with Node 20 and 50 with Node 24, packed 50 with both (1024 x 3392 x 768).
 */

import { madd } from '../as/simd.as';
import { PANEL, storePanel } from '../linear/arguments.as';

/** Rows of a tile. */
export const GROUP: i32 = 4;

/**
 * Sums over the depth of 4 x 8 products. They are stored, or with `add` added, to the first `rows` rows of the target,
 * `step` bytes apart; columns from `valid` on become zero.
 */
export function tile(group: usize, panel: usize, panelEnd: usize, target: usize, step: usize, rows: i32, valid: i32, add: bool): void {
  let c00 = f32x4.splat(0);
  let c01 = f32x4.splat(0);
  let c10 = f32x4.splat(0);
  let c11 = f32x4.splat(0);
  let c20 = f32x4.splat(0);
  let c21 = f32x4.splat(0);
  let c30 = f32x4.splat(0);
  let c31 = f32x4.splat(0);
  while (panel < panelEnd) {
    const b0 = v128.load(panel);
    const b1 = v128.load(panel, 16);
    const a0 = v128.load32_splat(group);
    c00 = madd(a0, b0, c00);
    c01 = madd(a0, b1, c01);
    const a1 = v128.load32_splat(group, 4);
    c10 = madd(a1, b0, c10);
    c11 = madd(a1, b1, c11);
    const a2 = v128.load32_splat(group, 8);
    c20 = madd(a2, b0, c20);
    c21 = madd(a2, b1, c21);
    const a3 = v128.load32_splat(group, 12);
    c30 = madd(a3, b0, c30);
    c31 = madd(a3, b1, c31);
    panel += 32;
    group += 16;
  }
  put(target, c00, c01, valid, add);
  if (rows > 1) put(target + step, c10, c11, valid, add);
  if (rows > 2) put(target + 2 * step, c20, c21, valid, add);
  if (rows > 3) put(target + 3 * step, c30, c31, valid, add);
}

@inline
function put(at: usize, low: v128, high: v128, valid: i32, add: bool): void {
  if (add) {
    low = f32x4.add(low, v128.load(at));
    high = f32x4.add(high, v128.load(at, 16));
  }
  storePanel(at, low, high, valid);
}

/**
 * Copies `panels` times 8 floats of each of `depth` rows, `step` bytes apart, to [panel][depth][8]; panels are
 * `panelBytes` apart. Four rows at a time fill whole cache lines: panels are often a power of two apart, so lines
 * written in parts would push each other out of the cache.
 */
export function packPanels(source: usize, step: usize, depth: i32, panels: i32, target: usize, panelBytes: usize): void {
  let row = 0;
  for (; row + 4 <= depth; row += 4, source += 4 * step, target += 4 * PANEL * 4) {
    let from = source;
    let to = target;
    for (let p = 0; p < panels; p++, from += 32, to += panelBytes) {
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from, 16), 16);
      v128.store(to, v128.load(from + step), 32);
      v128.store(to, v128.load(from + step, 16), 48);
      v128.store(to, v128.load(from + 2 * step), 64);
      v128.store(to, v128.load(from + 2 * step, 16), 80);
      v128.store(to, v128.load(from + 3 * step), 96);
      v128.store(to, v128.load(from + 3 * step, 16), 112);
    }
  }
  for (; row < depth; row++, source += step, target += 32) {
    let from = source;
    let to = target;
    for (let p = 0; p < panels; p++, from += 32, to += panelBytes) {
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from, 16), 16);
    }
  }
}
