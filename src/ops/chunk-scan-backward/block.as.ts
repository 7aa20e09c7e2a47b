/** A block of channels that a thread carries through a sequence, and the factors by which its heads decay. */

import { keepLanes } from '../as/simd.as';
import { gather } from '../chunk-scan/arguments.as';
import { CHUNK, ScanBackwardArguments, round4 } from './arguments.as';
import { CHANNEL_ROW } from './tiles.as';

/** Most channels of a block. */
export const BLOCK: i32 = 64;
/** Bytes of CHUNK rows of channels or heads, or of BLOCK rows of steps. */
const SLAB: usize = 8192;
/** Factors below this count as nothing left: arithmetic on subnormal numbers is slow. */
const NEGLIGIBLE: f32 = 1e-20;
/** A run of steps ends before its product of decays falls below this. */
const SMALLEST_SCALE: f32 = 1e-18;

/**
 * Names of factors, per step of a chunk: `carried` is what is left at the step of the state at the chunk's start,
 * `left` what is left of the step's input at the chunk's end; within a run, `scale` is the product of the decays after
 * its first step, and `inverse` what an input is divided by so that `scale` times it is right at any later step.
 */
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
  /** Rows of heads. */
  steps: usize;
  decays: usize;
  carried: usize;
  left: usize;
  scale: usize;
  inverse: usize;
  /** Rows of channels: operands, dy by `carried`, dt * x by `left`, the gradient of dt * x. */
  x: usize;
  dy: usize;
  outputs: usize;
  inputs: usize;
  z: usize;
  /** Of a run: dy by `scale`, dt * x by `inverse`; `factors`: `left` or `inverse` by channel. */
  runOutputs: usize;
  runInputs: usize;
  factors: usize;
  /** Rows of steps, one a channel: the transposes of outputs, inputs, runOutputs. */
  outputsT: usize;
  inputsT: usize;
  runOutputsT: usize;
  /** Rows of steps, one a head: dy' S c. */
  along: usize;
  /** One row of channels each: d, sums of dy * x, `carried` of the last step, heads' offsets in bytes, <G, S>. */
  skip: usize;
  skipSums: usize;
  lastCarried: usize;
  headOf: usize;
  boundary: usize;
  /** The adjoint of the state at the chunk's end, [N4] rows of channels, and the states at the chunks' starts. */
  adjoint: usize;
  states: usize;
}
const HEADER_BYTES: usize = 256;
const SLABS: usize = 19;

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
  let at = own + HEADER_BYTES;
  for (let slab: usize = 0; slab < SLABS - 1; slab++, at += SLAB) store<usize>(own + offsetof<Block>('steps') + slab * sizeof<usize>(), at);
  k.skip = at;
  k.skipSums = at + CHANNEL_ROW;
  k.lastCarried = at + 2 * CHANNEL_ROW;
  k.headOf = at + 3 * CHANNEL_ROW;
  k.boundary = at + 4 * CHANNEL_ROW;
  k.adjoint = at + SLAB;
  k.states = k.adjoint + stateBytes(a);
  memory.fill(k.skip, 0, SLAB);
  // Columns behind the last channel take part in tiles.
  memory.fill(k.outputs, 0, SLAB);
  memory.fill(k.inputs, 0, SLAB);
  memory.fill(k.runOutputs, 0, SLAB);
  for (let i = 0; i < k.width; i++) {
    const h = i / k.headdim;
    const c = <usize>i << 2;
    store<u32>(k.headOf + c, h << 2);
    store<f32>(k.skip + c, load<f32>(a.d + (<usize>(a.dHasHdim ? k.channel + i : k.head + h) << 2)));
  }
  return k;
}

/** Four channels' lanes of a row of heads. */
@inline
export function byChannel(k: Block, heads: usize, c: usize): v128 {
  const head = k.headOf + c;
  if ((k.headdim & 3) == 0) return v128.load32_splat(heads + <usize>load<u32>(head));
  return gather(heads, load<u32>(head), load<u32>(head, 4), load<u32>(head, 8), load<u32>(head, 12));
}

@inline
function kept(factor: v128): v128 {
  return v128.and(factor, f32x4.gt(factor, f32x4.splat(NEGLIGIBLE)));
}

/** Fills steps, decays, carried and left for the steps of a chunk, and lastCarried. */
export function loadFactors(a: ScanBackwardArguments, k: Block, row: i32, chunk: i32, count: i32): void {
  const headBytes = <usize>round4(a.heads) << 2;
  const at = (<usize>row * <usize>a.length + <usize>(chunk * CHUNK)) * headBytes + (<usize>k.head << 2);
  const end = <usize>count * CHANNEL_ROW;
  for (let h = 0; h < k.heads; h += 4) {
    const offset = <usize>h << 2;
    const lanes = k.heads - h;
    let from = at + offset;
    let carried = f32x4.splat(1);
    for (let i: usize = offset; i < end; i += CHANNEL_ROW, from += headBytes) {
      const decay = keepLanes(v128.load(a.decays + from), lanes);
      carried = kept(f32x4.mul(carried, decay));
      v128.store(k.steps + i, keepLanes(v128.load(a.steps + from), lanes));
      v128.store(k.decays + i, decay);
      v128.store(k.carried + i, carried);
    }
    let left = f32x4.splat(1);
    for (let i = offset + end - CHANNEL_ROW; ; i -= CHANNEL_ROW) {
      v128.store(k.left + i, left);
      if (i == offset) break;
      left = kept(f32x4.mul(left, v128.load(k.decays + i)));
    }
  }
  const last = k.carried + end - CHANNEL_ROW;
  const width = <usize>k.width << 2;
  for (let c: usize = 0; c < width; c += 16) v128.store(k.lastCarried + c, byChannel(k, last, c));
}

/**
 * Where the run of steps from `t` on ends, at most at `count`; fills scale and inverse for its steps, and brings the
 * inverse of the steps before it from the first step of the run before, at `before`, to its own.
 */
export function planRun(k: Block, before: i32, t: i32, count: i32): i32 {
  let end = count;
  const first = <usize>t * CHANNEL_ROW;
  const vectors = <usize>round4(k.heads) << 2;
  if (t > 0) {
    const last = first - CHANNEL_ROW;
    for (let h: usize = 0; h < vectors; h += 16) {
      const factor = f32x4.mul(v128.load(k.scale + last + h), v128.load(k.decays + first + h));
      for (let i: usize = h; i < first; i += CHANNEL_ROW) v128.store(k.inverse + i, kept(f32x4.mul(v128.load(k.inverse + i), factor)));
    }
  }
  for (let h: usize = 0; h < vectors; h += 16) {
    v128.store(k.scale + first + h, f32x4.splat(1));
    v128.store(k.inverse + first + h, f32x4.splat(1));
  }
  for (let i = t + 1; i < end; i++) {
    const at = <usize>i * CHANNEL_ROW;
    for (let h = 0; h < k.heads; h += 4) {
      const o = at + (<usize>h << 2);
      const scale = f32x4.mul(v128.load(k.scale + o - CHANNEL_ROW), v128.load(k.decays + o));
      const small = f32x4.lt(keepLanesAs(scale, k.heads - h), f32x4.splat(SMALLEST_SCALE));
      if (v128.any_true(small)) {
        end = i;
        break;
      }
      v128.store(k.scale + o, scale);
      v128.store(k.inverse + o, f32x4.div(f32x4.splat(1), scale));
    }
  }
  return end;
}

/** The first `count` lanes, 1 in the others. */
@inline
function keepLanesAs(x: v128, count: i32): v128 {
  return v128.bitselect(x, f32x4.splat(1), i32x4.gt_s(i32x4.splat(count), i32x4(0, 1, 2, 3)));
}
