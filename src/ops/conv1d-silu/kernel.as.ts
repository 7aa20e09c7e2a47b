/**
 * Causal convolution with SiLU: y[t] = silu(bias + sum_k w[k] * x[t - K + 1 + k]) per channel.
 *
 * Work is dealt in units of 16 columns by 32 steps. The thread that owns the first steps of a column also updates its
 * window, after its outputs: nobody else reads or writes that part of the window, so no barrier is needed.
 */

import { COLUMN_ALIGN, keepLanes, madd, shareStart, silu4 } from '../as/simd.as';

const STEPS_PER_UNIT: i32 = 32;

@unmanaged
class Conv1dSiluArguments {
  x: usize;
  xStride: i32;
  y: usize;
  yStride: i32;
  weight: usize;
  weightStride: i32;
  /** 0 when there is none. */
  bias: usize;
  /** 0 when there is no state. */
  slotTable: usize;
  /** 0: batch row b uses slot b. */
  slots: usize;
  /** 0: every step is real. */
  lengths: usize;
  stateOffset: u32;
  stateChannels: i32;
  batch: i32;
  length: i32;
  taps: i32;
  /** All columns, with padding. */
  columns: i32;
  segments: i32;
}
// After the arguments: (column, first channel, count) of every segment.
const SEGMENT_BYTES: usize = 12;

export function conv1dSilu(args: usize, thread: i32, threads: i32): void {
  const a = changetype<Conv1dSiluArguments>(args);
  const length = a.length;
  const columnUnits = a.columns / COLUMN_ALIGN;
  const timeUnits = (length + STEPS_PER_UNIT - 1) / STEPS_PER_UNIT;
  const total = a.batch * timeUnits * columnUnits;
  let unit = shareStart(total, 1, thread, threads);
  const end = shareStart(total, 1, thread + 1, threads);
  while (unit < end) {
    const row = unit / columnUnits;
    const first = unit - row * columnUnits;
    const last = min(columnUnits, first + end - unit);
    const b = row / timeUnits;
    const t0 = (row - b * timeUnits) * STEPS_PER_UNIT;
    columnRange(a, b, t0, min(length, t0 + STEPS_PER_UNIT), first * COLUMN_ALIGN, last * COLUMN_ALIGN);
    unit += last - first;
  }
}

/** Steps t0 .. t1 - 1 of columns from .. to - 1, segment by segment. */
function columnRange(a: Conv1dSiluArguments, b: i32, t0: i32, t1: i32, from: i32, to: i32): void {
  let state: usize = 0;
  if (a.slotTable != 0) {
    const slot = a.slots != 0 ? load<i32>(a.slots + (<usize>b << 2)) : b;
    state = <usize>load<u32>(a.slotTable + (<usize>slot << 2)) + <usize>a.stateOffset;
  }
  let segment = changetype<usize>(a) + offsetof<Conv1dSiluArguments>();
  for (let s = 0; s < a.segments; s++, segment += SEGMENT_BYTES) {
    const column = load<i32>(segment);
    const channel = load<i32>(segment, 4);
    const count = load<i32>(segment, 8);
    const first = max(from, column);
    const last = min(to, column + ((count + (COLUMN_ALIGN - 1)) & ~(COLUMN_ALIGN - 1)));
    if (first >= last) continue;
    // Channels of this range that are real; the columns after them are padding.
    const real = min(last, column + count) - first;
    block(a, b, state, t0, t1, first, channel + first - column, max(real, 0), last - first);
  }
}

/** Where step t of the call lies for a column: in x, in the window when negative, 0 without one. */
@inline
function source(a: Conv1dSiluArguments, xRow: usize, window: usize, t: i32): usize {
  if (t >= 0) return xRow + ((<usize>t * <usize>a.xStride) << 2);
  return window == 0 ? <usize>0 : window + ((<usize>(a.taps - 1 + t) * <usize>a.stateChannels) << 2);
}

function block(a: Conv1dSiluArguments, b: i32, state: usize, t0: i32, t1: i32, column: i32, channel: i32, real: i32, columns: i32): void {
  const batchRow = <usize>b * <usize>a.length;
  const xRow = a.x + ((batchRow * <usize>a.xStride + <usize>column) << 2);
  const yRow = a.y + ((batchRow * <usize>a.yStride + <usize>column) << 2);
  const window = state == 0 ? <usize>0 : state + (<usize>channel << 2);
  const weight = a.weight + (<usize>channel << 2);
  const bias = a.bias == 0 ? <usize>0 : a.bias + (<usize>channel << 2);
  const xStep = <usize>a.xStride << 2;
  const yStep = <usize>a.yStride << 2;
  const whole = a.taps == 4;
  const full = real & ~3;
  let t = t0;
  while (t < t1) {
    const y = yRow + <usize>t * yStep;
    let rows = 1;
    if (whole && t >= 3 && t + 4 <= t1) {
      rows = 4;
      fourRows(xRow + <usize>(t - 3) * xStep, xStep, y, yStep, weight, <usize>a.weightStride << 2, bias, real);
    } else if (whole && (t >= 3 || window != 0)) {
      const x0 = source(a, xRow, window, t - 3);
      const x1 = source(a, xRow, window, t - 2);
      const x2 = source(a, xRow, window, t - 1);
      oneRow(x0, x1, x2, xRow + <usize>t * xStep, y, weight, <usize>a.weightStride << 2, bias, real);
    } else {
      anyRow(a, xRow, window, t, y, weight, bias, real);
    }
    for (let r = 0; r < rows; r++) {
      for (let c = (real + 3) & ~3; c < columns; c += 4) v128.store(y + <usize>r * yStep + (<usize>c << 2), f32x4.splat(0));
      if (full < real) {
        const tail = y + <usize>r * yStep + (<usize>full << 2);
        v128.store(tail, keepLanes(v128.load(tail), real - full));
      }
    }
    t += rows;
  }
  if (t0 == 0 && window != 0 && real > 0) {
    updateWindow(a, xRow, window, a.lengths != 0 ? load<i32>(a.lengths + (<usize>b << 2)) : a.length, real);
  }
}

/** Four consecutive steps with four taps; x is the step three before the first. */
function fourRows(x: usize, xStep: usize, y: usize, yStep: usize, weight: usize, weightStep: usize, bias: usize, real: i32): void {
  const x1 = x + xStep;
  const x2 = x1 + xStep;
  const x3 = x2 + xStep;
  const x4 = x3 + xStep;
  const x5 = x4 + xStep;
  const x6 = x5 + xStep;
  const end = <usize>real << 2;
  for (let c: usize = 0; c < end; c += 16) {
    const w0 = v128.load(weight + c);
    const w1 = v128.load(weight + weightStep + c);
    const w2 = v128.load(weight + 2 * weightStep + c);
    const w3 = v128.load(weight + 3 * weightStep + c);
    const start = bias == 0 ? f32x4.splat(0) : v128.load(bias + c);
    const v1 = v128.load(x1 + c);
    const v2 = v128.load(x2 + c);
    const v3 = v128.load(x3 + c);
    const v4 = v128.load(x4 + c);
    const v5 = v128.load(x5 + c);
    v128.store(y + c, silu4(madd(w3, v3, madd(w2, v2, madd(w1, v1, madd(w0, v128.load(x + c), start))))));
    v128.store(y + yStep + c, silu4(madd(w3, v4, madd(w2, v3, madd(w1, v2, madd(w0, v1, start))))));
    v128.store(y + 2 * yStep + c, silu4(madd(w3, v5, madd(w2, v4, madd(w1, v3, madd(w0, v2, start))))));
    v128.store(y + 3 * yStep + c, silu4(madd(w3, v128.load(x6 + c), madd(w2, v5, madd(w1, v4, madd(w0, v3, start))))));
  }
}

/** One step with four taps from anywhere. */
function oneRow(x0: usize, x1: usize, x2: usize, x3: usize, y: usize, weight: usize, weightStep: usize, bias: usize, real: i32): void {
  const end = <usize>real << 2;
  for (let c: usize = 0; c < end; c += 16) {
    let sum = bias == 0 ? f32x4.splat(0) : v128.load(bias + c);
    sum = madd(v128.load(weight + c), v128.load(x0 + c), sum);
    sum = madd(v128.load(weight + weightStep + c), v128.load(x1 + c), sum);
    sum = madd(v128.load(weight + 2 * weightStep + c), v128.load(x2 + c), sum);
    sum = madd(v128.load(weight + 3 * weightStep + c), v128.load(x3 + c), sum);
    v128.store(y + c, silu4(sum));
  }
}

/** One step with any number of taps, some of them before the start. */
function anyRow(a: Conv1dSiluArguments, xRow: usize, window: usize, t: i32, y: usize, weight: usize, bias: usize, real: i32): void {
  const taps = a.taps;
  const weightStep = <usize>a.weightStride << 2;
  const end = <usize>real << 2;
  for (let c: usize = 0; c < end; c += 16) {
    let sum = bias == 0 ? f32x4.splat(0) : v128.load(bias + c);
    for (let k = 0; k < taps; k++) {
      const x = source(a, xRow, window, t - taps + 1 + k);
      if (x != 0) sum = madd(v128.load(weight + <usize>k * weightStep + c), v128.load(x + c), sum);
    }
    v128.store(y + c, silu4(sum));
  }
}

/** Makes the window the last K - 1 of its own steps and the first `steps` of the call. */
function updateWindow(a: Conv1dSiluArguments, xRow: usize, window: usize, steps: i32, real: i32): void {
  if (steps <= 0) return;
  // Step k comes from a later place of the window or from x, so going up never reads what was overwritten.
  for (let k = 0; k < a.taps - 1; k++) {
    memory.copy(source(a, 0, window, k - a.taps + 1), source(a, xRow, window, steps - a.taps + 1 + k), <usize>real << 2);
  }
}
