/** A block of channels that a thread carries through a sequence, and the factors by which its heads decay. */

import { keepLanes } from '../as/simd.as';
import { gather } from '../chunk-scan/arguments.as';
import { CHUNK, ScanBackwardArguments, round4 } from './arguments.as';
import { CHANNEL_ROW } from './tiles.as';

/** Most channels of a block. */
export const BLOCK: i32 = 64;
/** Bytes of CHUNK rows of channels or heads; BLOCK rows of steps take less. */
const SLAB: usize = 8704;
/** Factors below this count as nothing left: arithmetic on subnormal numbers is slow. */
const NEGLIGIBLE: f32 = 1e-20;
/** A run of steps ends before its product of decays falls below this. */
const SMALLEST_SCALE: f32 = 1e-18;

/**
 * Where the parts of a block's memory lie from `parts` on. Names of factors, per step of a chunk: CARRIED is what is left
 * at the step of the state at the chunk's start, LEFT what is left of the step's input at the chunk's end; within a run,
 * SCALE is the product of the decays after its first step, and INVERSE what an input is multiplied by so that SCALE
 * times it is right at any later step.
 *
 * Rows of heads:
 */
export const STEPS: usize = 0;
export const DECAYS: usize = SLAB;
export const CARRIED: usize = 2 * SLAB;
export const LEFT: usize = 3 * SLAB;
export const SCALE: usize = 4 * SLAB;
export const INVERSE: usize = 5 * SLAB;
/** Rows of channels: operands, dy by CARRIED, dt * x by LEFT, and the gradient of dt * x from other steps. */
export const X: usize = 6 * SLAB;
export const DY: usize = 7 * SLAB;
export const OUTPUTS: usize = 8 * SLAB;
export const INPUTS: usize = 9 * SLAB;
export const Z: usize = 10 * SLAB;
/** Of a run: dy by SCALE, dt * x by INVERSE; FACTORS: LEFT or INVERSE by channel. */
export const RUN_OUTPUTS: usize = 11 * SLAB;
export const RUN_INPUTS: usize = 12 * SLAB;
export const FACTORS: usize = 13 * SLAB;
/** Rows of steps, one a channel: the transposes of OUTPUTS, INPUTS, RUN_OUTPUTS. */
export const OUTPUTS_T: usize = 14 * SLAB;
export const INPUTS_T: usize = 15 * SLAB;
export const RUN_OUTPUTS_T: usize = 16 * SLAB;
/** Rows of steps, one a head: what dy' S c takes from earlier steps. */
export const ALONG: usize = 17 * SLAB;
/** One row of channels each: d, sums of dy * x, CARRIED of the last step, heads' offsets in bytes, <G, S>. */
export const SKIP: usize = 18 * SLAB;
export const SKIP_SUMS: usize = SKIP + CHANNEL_ROW;
export const LAST_CARRIED: usize = SKIP + 2 * CHANNEL_ROW;
export const HEAD_OF: usize = SKIP + 3 * CHANNEL_ROW;
export const BOUNDARY: usize = SKIP + 4 * CHANNEL_ROW;
/** The adjoint of the state at the chunk's end, and a state, [N4] rows of channels each. */
export const ADJOINT: usize = 19 * SLAB;

@unmanaged
export class Block {
  channel: i32;
  width: i32;
  /** Rounded up to whole tiles. */
  tiled: i32;
  head: i32;
  heads: i32;
  /** Channels of each head here, and which part of the head they are. */
  headdim: i32;
  part: i32;
  isLast: bool;
  parts: usize;
  state: usize;
  /** The states at the chunks' starts, [N4] rows of `width` rounded up to 4. */
  kept: usize;
}
const HEADER_BYTES: usize = 256;

@inline
export function stateBytes(a: ScanBackwardArguments): usize {
  return <usize>round4(a.dState) * CHANNEL_ROW;
}

export function makeBlock(a: ScanBackwardArguments, own: usize, index: i32): Block {
  const k = changetype<Block>(own);
  if (a.parts == 1) {
    k.head = index * a.headsPerBlock;
    k.heads = min(a.headsPerBlock, a.heads - k.head);
    k.headdim = a.headdim;
    k.part = 0;
    k.channel = k.head * a.headdim;
  } else {
    k.head = index / a.parts;
    k.heads = 1;
    k.part = index - k.head * a.parts;
    k.headdim = min(a.partWidth, a.headdim - k.part * a.partWidth);
    k.channel = k.head * a.headdim + k.part * a.partWidth;
  }
  k.width = k.heads * k.headdim;
  k.tiled = (k.width + 7) & ~7;
  k.isLast = index == a.blocks - 1;
  const parts = own + HEADER_BYTES;
  k.parts = parts;
  k.state = parts + ADJOINT + stateBytes(a);
  k.kept = k.state + stateBytes(a);
  memory.fill(parts + SKIP, 0, SLAB);
  // Columns behind the last channel take part in tiles.
  memory.fill(parts + OUTPUTS, 0, SLAB);
  memory.fill(parts + INPUTS, 0, SLAB);
  memory.fill(parts + RUN_OUTPUTS, 0, SLAB);
  for (let i = 0; i < k.width; i++) {
    const h = i / k.headdim;
    const c = parts + (<usize>i << 2);
    store<u32>(c + HEAD_OF, h << 2);
    store<f32>(c + SKIP, load<f32>(a.d + (<usize>(a.dHasHdim ? k.channel + i : k.head + h) << 2)));
  }
  return k;
}

/** Factors `kind` of four channels, `offset` bytes from the first on, at the step whose rows are at `row`. */
@inline
export function factorOf(k: Block, row: usize, kind: usize, offset: usize): v128 {
  const head = k.parts + offset;
  if ((k.headdim & 3) == 0) return v128.load32_splat(row + <usize>load<u32>(head, HEAD_OF) + kind);
  return gather(row + kind, load<u32>(head, HEAD_OF), load<u32>(head, HEAD_OF + 4), load<u32>(head, HEAD_OF + 8), load<u32>(head, HEAD_OF + 12));
}

@inline
function kept(factor: v128): v128 {
  return v128.and(factor, f32x4.gt(factor, f32x4.splat(NEGLIGIBLE)));
}

/** Fills STEPS, DECAYS, CARRIED and LEFT for the steps of a chunk, and LAST_CARRIED. */
export function loadFactors(a: ScanBackwardArguments, k: Block, row: i32, chunk: i32, count: i32): void {
  const headBytes = <usize>round4(a.heads) << 2;
  const first = (<usize>row * <usize>a.length + <usize>(chunk * CHUNK)) * headBytes + (<usize>k.head << 2);
  const rows = <usize>(count - 1) * CHANNEL_ROW;
  for (let h = 0; h < k.heads; h += 4) {
    const at = k.parts + (<usize>h << 2);
    const lanes = k.heads - h;
    let steps = a.steps + first + (<usize>h << 2);
    let decays = a.decays + first + (<usize>h << 2);
    let carried = f32x4.splat(1);
    for (let i = at; i <= at + rows; i += CHANNEL_ROW, steps += headBytes, decays += headBytes) {
      const decay = keepLanes(v128.load(decays), lanes);
      carried = kept(f32x4.mul(carried, decay));
      v128.store(i, keepLanes(v128.load(steps), lanes), STEPS);
      v128.store(i, decay, DECAYS);
      v128.store(i, carried, CARRIED);
    }
    let left = f32x4.splat(1);
    for (let i = at + rows; i >= at; i -= CHANNEL_ROW) {
      v128.store(i, left, LEFT);
      left = kept(f32x4.mul(left, v128.load(i, DECAYS)));
    }
  }
  const width = <usize>k.width << 2;
  for (let c: usize = 0; c < width; c += 16) v128.store(k.parts + c, factorOf(k, k.parts + rows, CARRIED, c), LAST_CARRIED);
}

/**
 * Where the run of steps from `t` on ends, at most at `count`; fills SCALE and INVERSE for its steps, and brings the
 * INVERSE of the steps before it from the first step of the run before to its own.
 */
export function planRun(k: Block, t: i32, count: i32): i32 {
  const first = k.parts + <usize>t * CHANNEL_ROW;
  const vectors = <usize>round4(k.heads) << 2;
  for (let h: usize = 0; h < vectors; h += 16) {
    const at = first + h;
    if (t > 0) {
      const factor = f32x4.mul(v128.load(at - CHANNEL_ROW, SCALE), v128.load(at, DECAYS));
      for (let i = k.parts + h; i < at; i += CHANNEL_ROW) v128.store(i, kept(f32x4.mul(v128.load(i, INVERSE), factor)), INVERSE);
    }
    v128.store(at, f32x4.splat(1), SCALE);
    v128.store(at, f32x4.splat(1), INVERSE);
  }
  for (let i = t + 1; i < count; i++) {
    let at = k.parts + <usize>i * CHANNEL_ROW;
    for (let h = 0; h < k.heads; h += 4, at += 16) {
      const scale = f32x4.mul(v128.load(at - CHANNEL_ROW, SCALE), v128.load(at, DECAYS));
      const isHead = i32x4.gt_s(i32x4.splat(k.heads - h), i32x4(0, 1, 2, 3));
      if (v128.any_true(v128.and(isHead, f32x4.lt(scale, f32x4.splat(SMALLEST_SCALE))))) return i;
      v128.store(at, scale, SCALE);
      v128.store(at, f32x4.div(f32x4.splat(1), scale), INVERSE);
    }
  }
  return count;
}

/** Copies state rows of the block's channels between working memory and the kept states. */
export function keepState(a: ScanBackwardArguments, k: Block, chunk: i32): void {
  const rowBytes = <usize>round4(k.width) << 2;
  let to = k.kept + <usize>chunk * <usize>round4(a.dState) * rowBytes;
  for (let from = k.state; from < k.state + stateBytes(a); from += CHANNEL_ROW, to += rowBytes) {
    for (let c: usize = 0; c < rowBytes; c += 16) v128.store(to + c, v128.load(from + c));
  }
}

/** The other way. */
export function recallState(a: ScanBackwardArguments, k: Block, chunk: i32): void {
  const rowBytes = <usize>round4(k.width) << 2;
  let from = k.kept + <usize>chunk * <usize>round4(a.dState) * rowBytes;
  for (let to = k.state; to < k.state + stateBytes(a); to += CHANNEL_ROW, from += rowBytes) {
    for (let c: usize = 0; c < rowBytes; c += 16) v128.store(to + c, v128.load(from + c));
  }
}
