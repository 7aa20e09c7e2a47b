/**
 * The chunk scan as products of matrices (the state-space duality of Dao & Gu 2024, section 6), for prefill.
 *
 * Channels are the columns of all products, whatever heads they belong to. A chunk is cut into runs of steps; q[t] is
 * the product of the decays of a run after its first step, g that of the decays from the chunk's start to that step:
 *
 *     y[i] = q[i] * (g * (C S)[i] + sum over j <= i of (C B^T)[i][j] * u[j]) + d * x[i],  u[j] = dt[j] / q[j] * x[j]
 *     S    = q[last] * (g * S + B^T u) at the end of the chunk
 *
 * so C B^T holds for all heads at once, and no exponential is taken of a pair of steps. A run ends with its chunk, or
 * before q falls below `SMALLEST_SCALE` in a head, which keeps 1 / q far from overflow; the next run brings g and the
 * u before it to its own first step by factors below one.
 *
 * `chunkScanPrepare` writes, for every panel of 4 steps, [N4 + CHUNK][4] floats: C transposed, then the lower triangle
 * of C B^T within its chunk; for every chunk, B as [N4 / 4][CHUNK][4]; and dt and the decays, [step][H4]. N4 and H4
 * are N and H rounded up to 4. `cpu.ts` lays the memory out and must know the constants.
 */

import { keepLanes, madd, padded, shareStart } from '../as/simd.as';
import { ChunkScanArguments, decayOf, gather, stateOf, stepSize, stepsOf } from './arguments.as';

/** Steps of a chunk. */
const CHUNK: i32 = 32;
/** Most channels that a thread carries through the sequence at once. */
const BLOCK: i32 = 64;
const BLOCK_BYTES: usize = 256;
/** exp(-50). */
const SMALLEST_SCALE: f32 = 2e-22;
/** Inputs that have decayed below this are dropped: arithmetic on subnormal numbers is slow. */
const NEGLIGIBLE: f32 = 1e-30;

@inline
function round4(n: i32): i32 {
  return (n + 3) & ~3;
}

/** Bytes of one panel of 4 steps. */
@inline
function panelBytes(a: ChunkScanArguments): usize {
  return <usize>(round4(a.dState) + CHUNK) << 4;
}

/** Transposes the 4 x 4 floats at `from` (rows `fromStep` bytes apart) to `to` (rows `toStep` apart); true if any is not 0. */
@inline
function transpose4(from: usize, fromStep: usize, to: usize, toStep: usize): bool {
  const r0 = v128.load(from);
  const r1 = v128.load(from + fromStep);
  const r2 = v128.load(from + 2 * fromStep);
  const r3 = v128.load(from + 3 * fromStep);
  const a = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5);
  const b = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7);
  const c = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
  const d = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
  v128.store(to, v128.shuffle<f32>(a, c, 0, 1, 4, 5));
  v128.store(to + toStep, v128.shuffle<f32>(a, c, 2, 3, 6, 7));
  v128.store(to + 2 * toStep, v128.shuffle<f32>(b, d, 0, 1, 4, 5));
  v128.store(to + 3 * toStep, v128.shuffle<f32>(b, d, 2, 3, 6, 7));
  return v128.any_true(v128.or(v128.or(r0, r1), v128.or(r2, r3)));
}

/** What all heads share, and the step sizes and decays of each. Panels are dealt in turn: later ones cost more. */
export function chunkScanPrepare(args: usize, thread: i32, threads: i32): void {
  const a = changetype<ChunkScanArguments>(args);
  const panels = (a.length + 3) >> 2;
  const total = a.batchCount * panels;
  for (let unit = thread; unit < total; unit += threads) {
    const row = unit / panels;
    const t = (unit - row * panels) << 2;
    const steps = min(4, stepsOf(a, a.batchStart + row) - t);
    if (steps > 0) preparePanel(a, row, unit, t, steps);
  }
}

function preparePanel(a: ChunkScanArguments, row: i32, unit: i32, t: i32, steps: i32): void {
  const first = <usize>(a.batchStart + row) * <usize>a.length;
  const dState = round4(a.dState);
  const panel = a.panels + <usize>unit * panelBytes(a);
  const bStep = <usize>a.bStride << 2;
  const bRow = a.b + first * bStep;
  const cStep = <usize>a.cStride << 2;
  const cRow = a.c + (first + <usize>t) * cStep;
  const chunks = (a.length + CHUNK - 1) / CHUNK;
  const chunkStart = t - (t % CHUNK);
  let inputs = a.inputs + ((<usize>(row * chunks + t / CHUNK) * <usize>dState * <usize>CHUNK + <usize>((t - chunkStart) << 2)) << 2);
  for (let n = 0; n < dState; n += 4, inputs += <usize>CHUNK << 4) {
    const lanes = a.dState - n;
    const to = panel + (<usize>n << 4);
    const from = cRow + (<usize>n << 2);
    for (let i = 0; i < 4; i++) {
      // Steps past the last real one stand in as zeros.
      const isReal = i < steps;
      v128.store(to + (<usize>i << 4), isReal ? keepLanes(v128.load(from + <usize>i * cStep), lanes) : f32x4.splat(0));
      if (isReal) v128.store(inputs + (<usize>i << 4), keepLanes(v128.load(bRow + <usize>(t + i) * bStep + (<usize>n << 2)), lanes));
    }
    transpose4(to, 16, to, 16);
  }
  let products = panel + (<usize>dState << 4);
  for (let j = chunkStart; j < t; j += 4, products += 64) fourProducts(panel, bRow + <usize>j * bStep, bStep, a.dState, products, 4);
  fourProducts(panel, bRow + <usize>t * bStep, bStep, a.dState, products, steps);
  // The diagonal block: step i sees the steps up to i.
  v128.store(products, v128.and(v128.load(products, 16), i32x4(0, -1, -1, -1)), 16);
  v128.store(products, v128.and(v128.load(products, 32), i32x4(0, 0, -1, -1)), 32);
  v128.store(products, v128.and(v128.load(products, 48), i32x4(0, 0, 0, -1)), 48);
  for (let i = 0; i < steps; i++) stepRow(a, first + <usize>(t + i), <usize>(row * a.length + t + i));
}

/** Products of the panel's 4 rows of C with `count` rows of B; rows that are not there repeat the last. */
function fourProducts(panel: usize, b: usize, bStep: usize, dState: i32, to: usize, count: i32): void {
  const b1 = count > 1 ? b + bStep : b;
  const b2 = count > 2 ? b1 + bStep : b1;
  const b3 = count > 3 ? b2 + bStep : b2;
  let p0 = f32x4.splat(0);
  let p1 = p0;
  let p2 = p0;
  let p3 = p0;
  const end = <usize>dState << 2;
  for (let n: usize = 0; n < end; n += 4, panel += 16) {
    const c = v128.load(panel);
    p0 = madd(c, v128.load32_splat(b + n), p0);
    p1 = madd(c, v128.load32_splat(b1 + n), p1);
    p2 = madd(c, v128.load32_splat(b2 + n), p2);
    p3 = madd(c, v128.load32_splat(b3 + n), p3);
  }
  v128.store(to, p0);
  v128.store(to, p1, 16);
  v128.store(to, p2, 32);
  v128.store(to, p3, 48);
}

/** Step sizes and decays of one step, four heads at a time. */
function stepRow(a: ChunkScanArguments, row: usize, to: usize): void {
  const heads = <usize>round4(a.heads) << 2;
  const dt = a.dt + ((row * <usize>a.dtStride) << 2);
  to *= heads;
  for (let h: usize = 0; h < heads; h += 16) {
    const step = stepSize(a, v128.load(dt + h), v128.load(a.dtBias + h));
    v128.store(a.steps + to + h, step);
    v128.store(a.decays + to + h, decayOf(v128.load(a.aLog + h), step));
  }
}

/** A thread's memory for the channels it carries; rows of channels are BLOCK wide. */
@unmanaged
class Block {
  channel: i32;
  width: i32;
  /** Vectors of heads that the channels belong to, from the first one's. */
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
  /** Of each channel, its head's offset in bytes from the first. */
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
  const head = min(channel, last) / a.headdim;
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
  const channels = min(k.width, a.heads * a.headdim - k.channel);
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
  const channels = min(k.width, a.heads * a.headdim - k.channel);
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

/** Where the run from `t` on ends, `end` at the latest; fills headScales and headInputs. */
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
    if (v128.any_true(small)) {
      // Whole panels if there is one: cheaper than parts.
      const panelEnd = i & ~3;
      return panelEnd > t ? panelEnd : i;
    }
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
      tileOutputs(k, c, live ? panel : products, products, productsEnd, scales + c, x + c, xStep, y + c, yStep, t - step, end - step);
    }
  }
}

/** Stores one row of a tile: y = q * sum + d * x. */
@inline
function storeRow(sum0: v128, sum1: v128, scales: usize, skip0: v128, skip1: v128, x: usize, y: usize): void {
  v128.store(y, madd(skip0, v128.load(x), f32x4.mul(sum0, v128.load(scales))));
  v128.store(y, madd(skip1, v128.load(x, 16), f32x4.mul(sum1, v128.load(scales, 16))), 16);
}

/** 4 steps by 8 channels; of the steps, rows from .. to - 1 belong to the run and are stored. */
function tileOutputs(
  k: Block, c: usize, panel: usize, products: usize, productsEnd: usize,
  scales: usize, x: usize, xStep: usize, y: usize, yStep: usize, from: i32, to: i32,
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
  if (from <= 0) storeRow(a0, a1, scales, s0, s1, x, y);
  if (from <= 1 && to > 1) storeRow(b0, b1, scales + BLOCK_BYTES, s0, s1, x + xStep, y + yStep);
  if (from <= 2 && to > 2) storeRow(c0, c1, scales + 2 * BLOCK_BYTES, s0, s1, x + 2 * xStep, y + 2 * yStep);
  if (from <= 3 && to > 3) storeRow(d0, d1, scales + 3 * BLOCK_BYTES, s0, s1, x + 3 * xStep, y + 3 * yStep);
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
