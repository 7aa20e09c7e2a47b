/**
 * The chunk scan as products of matrices (the state-space duality of Dao & Gu 2024, section 6), for prefill.
 *
 * Channels are the columns of all products, whatever heads they belong to. A chunk is cut into runs of steps; q[t] is
 * the product of the decays of a run after its first step, g that of the decays from the chunk's start to that step:
 *
 *     y[i] = q[i] * (g * (C S)[i] + sum over j <= i of (C B^T)[i][j] * u[j]) + d * x[i],  u[j] = dt[j] / q[j] * x[j]
 *     S    = q[last] * (g * S + B^T u) at the end of the chunk
 *
 * so C B^T holds for all heads at once, and no exponential is taken of a pair of steps. Runs are whole panels of 4
 * steps. One ends with its chunk, or before q falls below `SMALLEST_SCALE` in a head, which keeps 1 / q far from
 * overflow; the next brings g and the u before it to its own first step by factors below one.
 */

import { madd, padded, shareStart } from '../as/simd.as';
import { CHUNK, ChunkScanArguments, gather, panelBytes, round4, stateOf, stepsOf, transpose4 } from './arguments.as';

/** Most channels that a thread carries through the sequence at once. */
const BLOCK: i32 = 64;
const BLOCK_BYTES: usize = 256;
/** Just below exp(-60): a panel of 4 steps always fits, for decays are held above exp(-20). */
const SMALLEST_SCALE: f32 = 8e-27;
/** Inputs that have decayed below this are dropped: arithmetic on subnormal numbers is slow. */
const NEGLIGIBLE: f32 = 1e-30;

/** A thread's memory for the channels it carries; rows of channels are BLOCK wide. */
@unmanaged
class Block {
  channel: i32;
  width: i32;
  /** First head of the channels, down to a multiple of 4, and vectors of heads from there. */
  head: i32;
  headVectors: i32;
  /** The transposed state [N4], then u [CHUNK], both by channel. */
  rows: usize;
  inputs: usize;
  /** q by channel [CHUNK]. */
  scales: usize;
  /** q and dt / q by head, [CHUNK][4 * headVectors]. */
  headScales: usize;
  headInputs: usize;
  /** d and g by channel. */
  skip: usize;
  carry: usize;
  /** Of each channel, its head's offset in bytes from `head`. */
  headOf: usize;
}
const BLOCK_HEADER_BYTES: usize = 64;

export function chunkScan(args: usize, thread: i32, threads: i32): void {
  const a = changetype<ChunkScanArguments>(args);
  const tiles = padded(a.heads * a.headdim) >> 3;
  const total = a.batchCount * tiles;
  let unit = shareStart(total, 1, thread, threads);
  const end = shareStart(total, 1, thread + 1, threads);
  const own = a.own + <usize>thread * <usize>a.ownBytes;
  while (unit < end) {
    const row = unit / tiles;
    const tile = unit - row * tiles;
    const count = min(min(tiles - tile, end - unit), BLOCK >> 3);
    scanBlock(a, row, makeBlock(a, own, tile << 3, count << 3));
    unit += count;
  }
}

function makeBlock(a: ChunkScanArguments, own: usize, channel: i32, width: i32): Block {
  const k = changetype<Block>(own);
  const last = a.heads * a.headdim - 1;
  // From a multiple of 4 on, so that vectors of heads stay within a step's row.
  const head = (min(channel, last) / a.headdim) & ~3;
  k.channel = channel;
  k.width = width;
  k.head = head;
  k.headVectors = (min(channel + width - 1, last) / a.headdim - head + 4) >> 2;
  k.rows = own + BLOCK_HEADER_BYTES;
  k.inputs = k.rows + <usize>round4(a.dState) * BLOCK_BYTES;
  k.scales = k.inputs + <usize>CHUNK * BLOCK_BYTES;
  k.headScales = k.scales + <usize>CHUNK * BLOCK_BYTES;
  k.headInputs = k.headScales + <usize>CHUNK * BLOCK_BYTES;
  k.skip = k.headInputs + <usize>CHUNK * BLOCK_BYTES;
  k.carry = k.skip + BLOCK_BYTES;
  k.headOf = k.carry + BLOCK_BYTES;
  for (let i = 0; i < width; i++) {
    const at = min(channel + i, last);
    const h = at / a.headdim;
    store<u32>(k.headOf + (<usize>i << 2), (h - head) << 2);
    store<f32>(k.skip + (<usize>i << 2), load<f32>(a.d + (<usize>(a.dHasHdim ? at : h) << 2)));
  }
  return k;
}

function scanBlock(a: ChunkScanArguments, row: i32, k: Block): void {
  const b = a.batchStart + row;
  const steps = stepsOf(a, b);
  const yStep = <usize>a.yStride << 2;
  const y = a.y + <usize>b * <usize>a.length * yStep + (<usize>k.channel << 2);
  for (let t = steps; t < a.length; t++) memory.fill(y + <usize>t * yStep, 0, <usize>k.width << 2);
  if (steps == 0) return;
  const state = stateOf(a, b);
  let live = loadState(a, k, state);
  for (let chunk = 0; chunk < steps; chunk += CHUNK) {
    const chunkEnd = min(chunk + CHUNK, steps);
    let t = chunk;
    while (t < chunkEnd) {
      const end = planRun(a, k, row, chunk, t, chunkEnd);
      spread(a, k, row, chunk, t, end);
      outputs(a, k, row, chunk, t, end, live);
      t = end;
    }
    if (state != 0 || chunkEnd < steps) updateState(a, k, row, chunk, chunkEnd);
    live = true;
  }
  storeState(a, k, state);
}

/** The transposed state of the block's channels, zeros without one; false when all of it is zero. */
function loadState(a: ChunkScanArguments, k: Block, state: usize): bool {
  memory.fill(k.rows, 0, <usize>round4(a.dState) * BLOCK_BYTES);
  if (state == 0) return false;
  // A tile may lie in the padding altogether.
  const channels = max(0, min(k.width, a.heads * a.headdim - k.channel));
  const rowBytes = <usize>a.dState << 2;
  const from = state + <usize>k.channel * rowBytes;
  const whole = (a.dState & 3) == 0 ? channels & ~3 : 0;
  let live = false;
  for (let c = 0; c < whole; c += 4) {
    const row = from + <usize>c * rowBytes;
    for (let n = 0; n < a.dState; n += 4) {
      if (transpose4(row + (<usize>n << 2), rowBytes, k.rows + <usize>n * BLOCK_BYTES + (<usize>c << 2), BLOCK_BYTES)) live = true;
    }
  }
  for (let c = whole; c < channels; c++) {
    for (let n = 0; n < a.dState; n++) {
      const value = load<f32>(from + <usize>c * rowBytes + (<usize>n << 2));
      store<f32>(k.rows + <usize>n * BLOCK_BYTES + (<usize>c << 2), value);
      if (value != 0) live = true;
    }
  }
  return live;
}

function storeState(a: ChunkScanArguments, k: Block, state: usize): void {
  if (state == 0) return;
  // A tile may lie in the padding altogether.
  const channels = max(0, min(k.width, a.heads * a.headdim - k.channel));
  const rowBytes = <usize>a.dState << 2;
  const to = state + <usize>k.channel * rowBytes;
  const whole = (a.dState & 3) == 0 ? channels & ~3 : 0;
  for (let c = 0; c < whole; c += 4) {
    const row = to + <usize>c * rowBytes;
    for (let n = 0; n < a.dState; n += 4) {
      transpose4(k.rows + <usize>n * BLOCK_BYTES + (<usize>c << 2), BLOCK_BYTES, row + (<usize>n << 2), rowBytes);
    }
  }
  for (let c = whole; c < channels; c++) {
    for (let n = 0; n < a.dState; n++) {
      store<f32>(to + <usize>c * rowBytes + (<usize>n << 2), load<f32>(k.rows + <usize>n * BLOCK_BYTES + (<usize>c << 2)));
    }
  }
}

/** Where the run from `t` on ends: at `end` or whole panels before; fills headScales and headInputs. */
function planRun(a: ChunkScanArguments, k: Block, row: i32, chunk: i32, t: i32, end: i32): i32 {
  const heads = <usize>round4(a.heads) << 2;
  const rowBytes = <usize>k.headVectors << 4;
  const at = (<usize>row * <usize>a.length + <usize>t) * heads + (<usize>k.head << 2);
  let steps = a.steps + at;
  let decays = a.decays + at;
  const offset = <usize>(t - chunk) * rowBytes;
  let scales = k.headScales + offset;
  let inputs = k.headInputs + offset;
  for (let h: usize = 0; h < rowBytes; h += 16) {
    v128.store(scales + h, f32x4.splat(1));
    v128.store(inputs + h, v128.load(steps + h));
  }
  for (let i = t + 1; i < end; i++) {
    steps += heads;
    decays += heads;
    inputs += rowBytes;
    let small = i32x4.splat(0);
    for (let h: usize = 0; h < rowBytes; h += 16) {
      const q = f32x4.mul(v128.load(scales + h), v128.load(decays + h));
      small = v128.or(small, f32x4.lt(q, f32x4.splat(SMALLEST_SCALE)));
      v128.store(scales + rowBytes + h, q);
      v128.store(inputs + h, f32x4.div(v128.load(steps + h), q));
    }
    scales += rowBytes;
    if (v128.any_true(small)) return i & ~3;
  }
  return end;
}

/** Brings a run's q and u from heads to channels, and g and the chunk's earlier u to the run's first step. */
function spread(a: ChunkScanArguments, k: Block, row: i32, chunk: i32, t: i32, end: i32): void {
  const first = <usize>(a.batchStart + row) * <usize>a.length;
  const xStep = <usize>a.xStride << 2;
  let x = a.x + (first + <usize>t) * xStep + (<usize>k.channel << 2);
  const width = <usize>k.width << 2;
  const rowBytes = <usize>k.headVectors << 4;
  const whole = (a.headdim & 3) == 0;
  const at = <usize>(t - chunk);
  let headScales = k.headScales + at * rowBytes;
  let headInputs = k.headInputs + at * rowBytes;
  let scales = k.scales + at * BLOCK_BYTES;
  let inputs = k.inputs + at * BLOCK_BYTES;
  const decays = a.decays + (((<usize>row * <usize>a.length + <usize>t) * <usize>round4(a.heads) + <usize>k.head) << 2);
  for (let c: usize = 0; c < width; c += 16) {
    const head = k.headOf + c;
    let factor = gather(decays, load<u32>(head), load<u32>(head, 4), load<u32>(head, 8), load<u32>(head, 12));
    if (t > chunk) {
      factor = f32x4.mul(factor, v128.load(scales - BLOCK_BYTES + c));
      for (let u = k.inputs + c; u < inputs; u += BLOCK_BYTES) {
        const moved = f32x4.mul(v128.load(u), factor);
        v128.store(u, v128.and(moved, f32x4.gt(f32x4.abs(moved), f32x4.splat(NEGLIGIBLE))));
      }
      factor = f32x4.mul(factor, v128.load(k.carry + c));
    }
    v128.store(k.carry + c, factor);
  }
  for (let i = t; i < end; i++) {
    if (whole) {
      for (let c: usize = 0; c < width; c += 16) {
        const head = <usize>load<u32>(k.headOf + c);
        v128.store(scales + c, v128.load32_splat(headScales + head));
        v128.store(inputs + c, f32x4.mul(v128.load32_splat(headInputs + head), v128.load(x + c)));
      }
    } else {
      for (let c: usize = 0; c < width; c += 16) {
        const head = k.headOf + c;
        v128.store(scales + c, gather(headScales, load<u32>(head), load<u32>(head, 4), load<u32>(head, 8), load<u32>(head, 12)));
        const input = gather(headInputs, load<u32>(head), load<u32>(head, 4), load<u32>(head, 8), load<u32>(head, 12));
        v128.store(inputs + c, f32x4.mul(input, v128.load(x + c)));
      }
    }
    x += xStep;
    headScales += rowBytes;
    headInputs += rowBytes;
    scales += BLOCK_BYTES;
    inputs += BLOCK_BYTES;
  }
}

function outputs(a: ChunkScanArguments, k: Block, row: i32, chunk: i32, t: i32, end: i32, live: bool): void {
  const first = <usize>(a.batchStart + row) * <usize>a.length;
  const dState = <usize>round4(a.dState);
  const xStep = <usize>a.xStride << 2;
  const yStep = <usize>a.yStride << 2;
  const width = <usize>k.width << 2;
  const panels = (a.length + 3) >> 2;
  for (let p = t >> 2; p << 2 < end; p++) {
    const step = p << 2;
    const panel = a.panels + <usize>(row * panels + p) * panelBytes(a);
    const products = panel + (dState << 4);
    const productsEnd = products + (<usize>(min(step + 4, end) - chunk) << 4);
    const x = a.x + (first + <usize>step) * xStep + (<usize>k.channel << 2);
    const y = a.y + (first + <usize>step) * yStep + (<usize>k.channel << 2);
    const scales = k.scales + <usize>(step - chunk) * BLOCK_BYTES;
    for (let c: usize = 0; c < width; c += 32) {
      tileOutputs(k, c, live ? panel : products, products, productsEnd, scales + c, x + c, xStep, y + c, yStep, end - step);
    }
  }
}

/** Stores one row of a tile: y = q * sum + d * x. */
@inline
function storeRow(sum0: v128, sum1: v128, scales: usize, skip0: v128, skip1: v128, x: usize, y: usize): void {
  v128.store(y, madd(skip0, v128.load(x), f32x4.mul(sum0, v128.load(scales))));
  v128.store(y, madd(skip1, v128.load(x, 16), f32x4.mul(sum1, v128.load(scales, 16))), 16);
}

/** 4 steps by 8 channels; of the steps the first `steps` are there. */
function tileOutputs(
  k: Block, c: usize, panel: usize, products: usize, productsEnd: usize,
  scales: usize, x: usize, xStep: usize, y: usize, yStep: usize, steps: i32,
): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let b0 = a0;
  let b1 = a0;
  let c0 = a0;
  let c1 = a0;
  let d0 = a0;
  let d1 = a0;
  let r = k.rows + c;
  // Short loop bodies: engines keep all of this in registers; unrolled by hand it is a third slower.
  for (; panel < products; panel += 16, r += BLOCK_BYTES) {
    const r0 = v128.load(r);
    const r1 = v128.load(r, 16);
    let w = v128.load32_splat(panel);
    a0 = madd(w, r0, a0);
    a1 = madd(w, r1, a1);
    w = v128.load32_splat(panel, 4);
    b0 = madd(w, r0, b0);
    b1 = madd(w, r1, b1);
    w = v128.load32_splat(panel, 8);
    c0 = madd(w, r0, c0);
    c1 = madd(w, r1, c1);
    w = v128.load32_splat(panel, 12);
    d0 = madd(w, r0, d0);
    d1 = madd(w, r1, d1);
  }
  const f0 = v128.load(k.carry + c);
  const f1 = v128.load(k.carry + c, 16);
  a0 = f32x4.mul(a0, f0);
  a1 = f32x4.mul(a1, f1);
  b0 = f32x4.mul(b0, f0);
  b1 = f32x4.mul(b1, f1);
  c0 = f32x4.mul(c0, f0);
  c1 = f32x4.mul(c1, f1);
  d0 = f32x4.mul(d0, f0);
  d1 = f32x4.mul(d1, f1);
  r = k.inputs + c;
  for (; products < productsEnd; products += 16, r += BLOCK_BYTES) {
    const r0 = v128.load(r);
    const r1 = v128.load(r, 16);
    let w = v128.load32_splat(products);
    a0 = madd(w, r0, a0);
    a1 = madd(w, r1, a1);
    w = v128.load32_splat(products, 4);
    b0 = madd(w, r0, b0);
    b1 = madd(w, r1, b1);
    w = v128.load32_splat(products, 8);
    c0 = madd(w, r0, c0);
    c1 = madd(w, r1, c1);
    w = v128.load32_splat(products, 12);
    d0 = madd(w, r0, d0);
    d1 = madd(w, r1, d1);
  }
  const s0 = v128.load(k.skip + c);
  const s1 = v128.load(k.skip + c, 16);
  storeRow(a0, a1, scales, s0, s1, x, y);
  if (steps > 1) storeRow(b0, b1, scales + BLOCK_BYTES, s0, s1, x + xStep, y + yStep);
  if (steps > 2) storeRow(c0, c1, scales + 2 * BLOCK_BYTES, s0, s1, x + 2 * xStep, y + 2 * yStep);
  if (steps > 3) storeRow(d0, d1, scales + 3 * BLOCK_BYTES, s0, s1, x + 3 * xStep, y + 3 * yStep);
}

/** Carries the state over the chunk. */
function updateState(a: ChunkScanArguments, k: Block, row: i32, chunk: i32, end: i32): void {
  const dState = round4(a.dState);
  const chunks = (a.length + CHUNK - 1) / CHUNK;
  const count = <usize>(end - chunk) << 4;
  let weights = a.inputs + ((<usize>(row * chunks + chunk / CHUNK) * <usize>dState * <usize>CHUNK) << 2);
  let state = k.rows;
  const scales = k.scales + <usize>(end - 1 - chunk) * BLOCK_BYTES;
  const width = <usize>k.width << 2;
  for (let n = 0; n < dState; n += 4, weights += <usize>CHUNK << 4, state += 4 * BLOCK_BYTES) {
    for (let c: usize = 0; c < width; c += 32) {
      tileState(state + c, weights, weights + count, k.inputs + c, k.carry + c, scales + c);
    }
  }
}

/** 4 state rows by 8 channels: S = q * (g * S + B^T u). */
function tileState(state: usize, weights: usize, weightsEnd: usize, r: usize, carry: usize, scales: usize): void {
  const f0 = v128.load(carry);
  const f1 = v128.load(carry, 16);
  let a0 = f32x4.mul(f0, v128.load(state));
  let a1 = f32x4.mul(f1, v128.load(state, 16));
  let b0 = f32x4.mul(f0, v128.load(state, BLOCK_BYTES));
  let b1 = f32x4.mul(f1, v128.load(state, BLOCK_BYTES + 16));
  let c0 = f32x4.mul(f0, v128.load(state, 2 * BLOCK_BYTES));
  let c1 = f32x4.mul(f1, v128.load(state, 2 * BLOCK_BYTES + 16));
  let d0 = f32x4.mul(f0, v128.load(state, 3 * BLOCK_BYTES));
  let d1 = f32x4.mul(f1, v128.load(state, 3 * BLOCK_BYTES + 16));
  for (; weights < weightsEnd; weights += 16, r += BLOCK_BYTES) {
    const r0 = v128.load(r);
    const r1 = v128.load(r, 16);
    let w = v128.load32_splat(weights);
    a0 = madd(w, r0, a0);
    a1 = madd(w, r1, a1);
    w = v128.load32_splat(weights, 4);
    b0 = madd(w, r0, b0);
    b1 = madd(w, r1, b1);
    w = v128.load32_splat(weights, 8);
    c0 = madd(w, r0, c0);
    c1 = madd(w, r1, c1);
    w = v128.load32_splat(weights, 12);
    d0 = madd(w, r0, d0);
    d1 = madd(w, r1, d1);
  }
  const q0 = v128.load(scales);
  const q1 = v128.load(scales, 16);
  v128.store(state, f32x4.mul(q0, a0));
  v128.store(state, f32x4.mul(q1, a1), 16);
  v128.store(state, f32x4.mul(q0, b0), BLOCK_BYTES);
  v128.store(state, f32x4.mul(q1, b1), BLOCK_BYTES + 16);
  v128.store(state, f32x4.mul(q0, c0), 2 * BLOCK_BYTES);
  v128.store(state, f32x4.mul(q1, c1), 2 * BLOCK_BYTES + 16);
  v128.store(state, f32x4.mul(q0, d0), 3 * BLOCK_BYTES);
  v128.store(state, f32x4.mul(q1, d1), 3 * BLOCK_BYTES + 16);
}
