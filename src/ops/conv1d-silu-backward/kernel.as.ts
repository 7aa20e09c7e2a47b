/**
 * Gradient of the causal convolution with SiLU.
 *
 * Work is dealt in units of 16 columns by 64 steps, four columns at a time: first g of the steps, then dx and the sums
 * from it, each in a loop that keeps all it needs in registers. dx needs g of three steps more, which the next unit
 * computes again, so that units are independent. Fewer than four taps are four with zeros before them. Every thread
 * sums the parameters' gradients in its own part of the scratch; the second call adds the parts in thread order, so
 * results repeat bit for bit.
 */

import { COLUMN_ALIGN, keepLanes, madd, padded, shareStart, siluSlope4 } from '../as/simd.as';

const STEPS_PER_UNIT: i32 = 64;
const TAPS: i32 = 4;

@unmanaged
class Conv1dSiluBackwardArguments {
  x: usize;
  xStride: i32;
  dy: usize;
  dyStride: i32;
  dx: usize;
  dxStride: i32;
  weight: usize;
  weightStride: i32;
  /** 0 when there is none. */
  bias: usize;
  /** 0: not wanted. */
  dWeight: usize;
  dWeightStride: i32;
  dBias: usize;
  /** [thread]: sums [TAPS + 1][columns], then g [STEPS_PER_UNIT + TAPS][4]. */
  sums: usize;
  batch: i32;
  length: i32;
  taps: i32;
  /** All columns, with padding. */
  columns: i32;
  segments: i32;
}
// After the arguments: (column, first channel, count) of every segment.
const SEGMENT_BYTES: usize = 12;

@inline
function segmentsOf(a: Conv1dSiluBackwardArguments): usize {
  return changetype<usize>(a) + offsetof<Conv1dSiluBackwardArguments>();
}

@inline
function sumBytes(a: Conv1dSiluBackwardArguments): usize {
  return <usize>(TAPS + 1) * (<usize>a.columns << 2);
}

/** Of one thread. */
@inline
function ownBytes(a: Conv1dSiluBackwardArguments): usize {
  return sumBytes(a) + (<usize>(STEPS_PER_UNIT + TAPS) << 4);
}

export function conv1dSiluBackward(args: usize, thread: i32, threads: i32): void {
  const a = changetype<Conv1dSiluBackwardArguments>(args);
  const sums = a.sums + <usize>thread * ownBytes(a);
  memory.fill(sums, 0, sumBytes(a));
  const columnUnits = a.columns / COLUMN_ALIGN;
  const timeUnits = (a.length + STEPS_PER_UNIT - 1) / STEPS_PER_UNIT;
  const total = a.batch * timeUnits * columnUnits;
  const end = shareStart(total, 1, thread + 1, threads);
  for (let unit = shareStart(total, 1, thread, threads); unit < end; unit++) {
    const row = unit / columnUnits;
    const column = (unit - row * columnUnits) * COLUMN_ALIGN;
    const b = row / timeUnits;
    const t0 = (row - b * timeUnits) * STEPS_PER_UNIT;
    sixteenColumns(a, b, t0, min(a.length, t0 + STEPS_PER_UNIT), column, sums);
  }
}

function sixteenColumns(a: Conv1dSiluBackwardArguments, b: i32, t0: i32, t1: i32, column: i32, sums: usize): void {
  let segment = segmentsOf(a);
  while (column >= load<i32>(segment) + padded(load<i32>(segment, 8))) segment += SEGMENT_BYTES;
  const offset = column - load<i32>(segment);
  const channel = load<i32>(segment, 4) + offset;
  const real = load<i32>(segment, 8) - offset;
  for (let c = 0; c < COLUMN_ALIGN; c += 4) fourColumns(a, b, t0, t1, column + c, channel + c, real - c, sums);
}

/** Of the four columns the first `real` are channels, the others padding. */
function fourColumns(a: Conv1dSiluBackwardArguments, b: i32, t0: i32, t1: i32, column: i32, channel: i32, real: i32, sums: usize): void {
  const xStep = <usize>a.xStride << 2;
  const dyStep = <usize>a.dyStride << 2;
  const dxStep = <usize>a.dxStride << 2;
  const first = <usize>b * <usize>a.length + <usize>t0;
  const across = <usize>column << 2;
  let x = a.x + first * xStep + across;
  let dy = a.dy + first * dyStep + across;
  let dx = a.dx + first * dxStep + across;
  const zero = f32x4.splat(0);
  if (real <= 0) {
    for (let t = t0; t < t1; t++, dx += dxStep) v128.store(dx, zero);
    return;
  }
  const step = <usize>a.weightStride << 2;
  const weight = a.weight + (<usize>channel << 2);
  const taps = a.taps;
  // The last tap is of the step itself.
  const w3 = keepLanes(v128.load(weight + <usize>(taps - 1) * step), real);
  const w2 = keepLanes(v128.load(weight + <usize>(taps - 2) * step), real);
  const w1 = taps > 2 ? keepLanes(v128.load(weight + <usize>(taps - 3) * step), real) : zero;
  const w0 = taps > 3 ? keepLanes(v128.load(weight + <usize>(taps - 4) * step), real) : zero;
  const bias = a.bias == 0 ? zero : v128.load(a.bias + (<usize>channel << 2));
  let x0 = t0 > 2 ? v128.load(x - 3 * xStep) : zero;
  let x1 = t0 > 1 ? v128.load(x - 2 * xStep) : zero;
  let x2 = t0 > 0 ? v128.load(x - xStep) : zero;
  const before0 = x0;
  const before1 = x1;
  const before2 = x2;
  const own = sums + sumBytes(a);
  const ownEnd = own + (<usize>(t1 - t0) << 4);
  const known = own + (<usize>(min(a.length, t1 + TAPS - 1) - t0) << 4);
  let from = x;
  for (let g = own; g < known; g += 16, from += xStep, dy += dyStep) {
    const x3 = v128.load(from);
    const sum = madd(w3, x3, madd(w2, x2, madd(w1, x1, madd(w0, x0, bias))));
    v128.store(g, keepLanes(f32x4.mul(v128.load(dy), siluSlope4(sum)), real));
    x0 = x1;
    x1 = x2;
    x2 = x3;
  }
  for (let g = known; g < ownEnd + 48; g += 16) v128.store(g, zero);

  let g0 = v128.load(own);
  let g1 = v128.load(own, 16);
  let g2 = v128.load(own, 32);
  for (let g = own; g < ownEnd; g += 16, dx += dxStep) {
    const g3 = v128.load(g, 48);
    v128.store(dx, madd(w0, g3, madd(w1, g2, madd(w2, g1, f32x4.mul(w3, g0)))));
    g0 = g1;
    g1 = g2;
    g2 = g3;
  }
  if (a.dWeight == 0 && a.dBias == 0) return;

  let s0 = zero;
  let s1 = zero;
  let s2 = zero;
  let s3 = zero;
  let s4 = zero;
  x0 = before0;
  x1 = before1;
  x2 = before2;
  for (let g = own; g < ownEnd; g += 16, x += xStep) {
    const x3 = v128.load(x);
    const g4 = v128.load(g);
    s0 = madd(g4, x0, s0);
    s1 = madd(g4, x1, s1);
    s2 = madd(g4, x2, s2);
    s3 = madd(g4, x3, s3);
    s4 = f32x4.add(g4, s4);
    x0 = x1;
    x1 = x2;
    x2 = x3;
  }
  const row = <usize>a.columns << 2;
  addTo(sums + across, s0);
  addTo(sums + row + across, s1);
  addTo(sums + 2 * row + across, s2);
  addTo(sums + 3 * row + across, s3);
  addTo(sums + 4 * row + across, s4);
}

@inline
function addTo(target: usize, v: v128): void {
  v128.store(target, f32x4.add(v128.load(target), v));
}

/** Adds the threads' sums to the parameters' gradients; columns are dealt to the threads. */
export function conv1dSiluBackwardSums(args: usize, thread: i32, threads: i32): void {
  const a = changetype<Conv1dSiluBackwardArguments>(args);
  const from = shareStart(a.columns, COLUMN_ALIGN, thread, threads);
  const to = shareStart(a.columns, COLUMN_ALIGN, thread + 1, threads);
  const row = <usize>a.columns << 2;
  let segment = segmentsOf(a);
  for (let s = 0; s < a.segments; s++, segment += SEGMENT_BYTES) {
    const column = load<i32>(segment);
    const end = min(to, column + load<i32>(segment, 8));
    for (let c = max(from, column); c < end; c++) {
      const channel = <usize>(load<i32>(segment, 4) + c - column) << 2;
      const sums = a.sums + (<usize>c << 2);
      if (a.dWeight != 0) {
        for (let k = 0; k < a.taps; k++) {
          addParts(a, a.dWeight + channel + <usize>k * (<usize>a.dWeightStride << 2), sums + <usize>(TAPS - a.taps + k) * row, threads);
        }
      }
      if (a.dBias != 0) addParts(a, a.dBias + channel, sums + <usize>TAPS * row, threads);
    }
  }
}

@inline
function addParts(a: Conv1dSiluBackwardArguments, target: usize, part: usize, threads: i32): void {
  let sum = load<f32>(part);
  for (let i = 1; i < threads; i++) sum += load<f32>(part + <usize>i * ownBytes(a));
  store<f32>(target, load<f32>(target) + sum);
}
