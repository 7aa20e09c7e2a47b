/**
 * The part of the chunk scan that all heads share, and their step sizes: the first of its two calls.
 *
 * For every panel of 4 steps it writes [N4 + CHUNK][4] floats: C transposed, then the lower triangle of C B^T within
 * the chunk; for every chunk, B as [N4 / 4][CHUNK][4]; and dt and the decays, [step][H4]. N4 and H4 are N and H
 * rounded up to 4. `cpu.ts` lays the memory out.
 */

import { keepLanes, madd } from '../as/simd.as';
import { CHUNK, ChunkScanArguments, decayOf, panelBytes, rateOf, round4, stepSize, stepsOf, transpose4 } from './arguments.as';

/**
 * exp(-20). Decays are held above it, an error of 2e-9 of the state they act on: so four steps in a row always fit
 * above `SMALLEST_SCALE`.
 */
const SMALLEST_DECAY: f32 = 2.0611537e-9;

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
  stepRows(a, first + <usize>t, <usize>row * <usize>a.length + <usize>t, steps);
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

/** Step sizes and decays of a panel's steps, four heads at a time. */
function stepRows(a: ChunkScanArguments, row: usize, to: usize, steps: i32): void {
  const heads = <usize>round4(a.heads) << 2;
  const dtStep = <usize>a.dtStride << 2;
  for (let h: usize = 0; h < heads; h += 16) {
    const bias = v128.load(a.dtBias + h);
    const rate = rateOf(v128.load(a.aLog + h));
    let dt = a.dt + row * dtStep + h;
    let at = to * heads + h;
    for (let i = 0; i < steps; i++, dt += dtStep, at += heads) {
      const step = stepSize(a, v128.load(dt), bias);
      v128.store(a.steps + at, step);
      v128.store(a.decays + at, f32x4.max(decayOf(rate, step), f32x4.splat(SMALLEST_DECAY)));
    }
  }
}
