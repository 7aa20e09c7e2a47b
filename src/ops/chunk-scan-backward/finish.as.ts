/**
 * The last call of the scan's gradient: the threads' sums become db and dc, with the pairs of steps within a chunk,
 * dc[i] += sum over j <= i of W[i][j] b[j] and db[j] += sum over i >= j of W[i][j] c[i]; and the sums by head become
 * ddt and the parameters' gradients, in the same order whatever the number of threads.
 */

import { decayOf, rateOf, transpose4 } from '../chunk-scan/arguments.as';
import { keepLanes, madd, padded, shareStart, sigmoid4, softplus4 } from '../as/simd.as';
import { CHUNK, STEP_ROW, ScanBackwardArguments, chunkSums, chunksOf, inputRows, outputRows, round4, sumsOf } from './arguments.as';
import { SMALLEST_DECAY } from './prepare.as';

export function scanBackwardFinish(args: usize, thread: i32, threads: i32): void {
  const a = changetype<ScanBackwardArguments>(args);
  const chunks = chunksOf(a);
  const total = a.batchCount * chunks;
  const end = shareStart(total, 1, thread + 1, threads);
  const own = a.own + <usize>thread * <usize>a.ownBytes;
  for (let unit = shareStart(total, 1, thread, threads); unit < end; unit++) {
    const row = unit / chunks;
    finishChunk(a, row, unit - row * chunks, threads, own);
  }
  const columns = padded(a.heads);
  const lastHead = shareStart(columns, 4, thread + 1, threads);
  for (let h = shareStart(columns, 4, thread, threads); h < lastHead; h += 4) finishHeads(a, h);
}

/** The chunk's W' with zeros below the diagonal, and W, at `own`; db and dc from them. */
function finishChunk(a: ScanBackwardArguments, row: i32, chunk: i32, threads: i32, own: usize): void {
  const dState = round4(a.dState);
  // Threads whose share of the blocks has some of this row.
  let first = 0;
  while (shareStart(a.batchCount * a.blocks, 1, first + 1, threads) <= row * a.blocks) first++;
  let last = first;
  while (last + 1 < threads && shareStart(a.batchCount * a.blocks, 1, last + 1, threads) < (row + 1) * a.blocks) last++;
  const sums = chunkSums(a, sumsOf(a, first, row), chunk);
  const next = sumsOf(a, 1, 0) - sumsOf(a, 0, 0);
  const weights = own;
  const transposed = own + <usize>CHUNK * STEP_ROW;
  const scratch = transposed + <usize>CHUNK * STEP_ROW;
  const from = sums + 2 * <usize>dState * STEP_ROW;
  for (let j = 0; j < CHUNK; j += 4) {
    for (let i = 0; i < CHUNK; i += 4) {
      const o = <usize>j * STEP_ROW + (<usize>i << 2);
      for (let r = 0; r < 4; r++) {
        const at = o + <usize>r * STEP_ROW;
        let sum = f32x4.splat(0);
        if (i >= j) {
          sum = v128.load(from + at);
          for (let p = 1; p <= last - first; p++) sum = f32x4.add(sum, v128.load(from + at + <usize>p * next));
          if (i == j) sum = v128.and(sum, i32x4.ge_s(i32x4(0, 1, 2, 3), i32x4.splat(r)));
        }
        v128.store(weights + at, sum);
      }
      transpose4(weights + o, STEP_ROW, transposed + <usize>i * STEP_ROW + (<usize>j << 2), STEP_ROW);
    }
  }
  const inputs = inputRows(a, row, chunk);
  const t = chunk * CHUNK;
  const count = min(CHUNK, a.length - t);
  const step = <usize>(a.batchStart + row) * <usize>a.length + <usize>t;
  const dbStep = <usize>a.dbStride << 2;
  const dcStep = <usize>a.dcStride << 2;
  writeRows(a, sums, next, last - first, outputRows(a, inputs), transposed, scratch, a.db + step * dbStep, dbStep, count);
  writeRows(a, sums + <usize>dState * STEP_ROW, next, last - first, inputs, weights, scratch, a.dc + step * dcStep, dcStep, count);
}

/** to = (sums of the threads + A x) transposed; zeros in the pad columns. */
function writeRows(
  a: ScanBackwardArguments, sums: usize, next: usize, more: i32, rows: usize, x: usize, scratch: usize, to: usize, toStep: usize, count: i32,
): void {
  for (let n = 0; n < a.dState; n += 4, sums += 4 * STEP_ROW, rows += 4 * STEP_ROW) {
    const lanes = a.dState - n;
    for (let i = 0; i < count; i += 4) {
      const o = <usize>i << 2;
      let s0 = v128.load(sums + o);
      let s1 = v128.load(sums + o, 128);
      let s2 = v128.load(sums + o, 256);
      let s3 = v128.load(sums + o, 384);
      for (let p = 1; p <= more; p++) {
        const part = sums + o + <usize>p * next;
        s0 = f32x4.add(s0, v128.load(part));
        s1 = f32x4.add(s1, v128.load(part, 128));
        s2 = f32x4.add(s2, v128.load(part, 256));
        s3 = f32x4.add(s3, v128.load(part, 384));
      }
      let row = rows;
      const end = x + o + <usize>CHUNK * STEP_ROW;
      for (let k = x + o; k < end; k += STEP_ROW, row += 4) {
        const x4 = v128.load(k);
        s0 = madd(v128.load32_splat(row), x4, s0);
        s1 = madd(v128.load32_splat(row, 128), x4, s1);
        s2 = madd(v128.load32_splat(row, 256), x4, s2);
        s3 = madd(v128.load32_splat(row, 384), x4, s3);
      }
      v128.store(scratch, s0);
      v128.store(scratch, s1, 16);
      v128.store(scratch, s2, 32);
      v128.store(scratch, s3, 48);
      transpose4(scratch, 16, scratch, 16);
      let at = to + <usize>i * toStep + (<usize>n << 2);
      for (let r = 0; r < min(4, count - i); r++, at += toStep) v128.store(at, keepLanes(v128.load(scratch + (<usize>r << 4)), lanes));
    }
  }
  const from = <usize>round4(a.dState) << 2;
  const bytes = (<usize>padded(a.dState) << 2) - from;
  if (bytes > 0) for (let i = 0; i < count; i++, to += toStep) memory.fill(to + from, 0, bytes);
}

/** ddt of four heads from `h` on, and their parameters' gradients. */
function finishHeads(a: ScanBackwardArguments, h: i32): void {
  const zero = f32x4.splat(0);
  const lanes = a.heads - h;
  const o = <usize>h << 2;
  const ddtStep = <usize>a.ddtStride << 2;
  const dtStep = <usize>a.dtStride << 2;
  const steps = a.batchCount * a.length;
  const start = <usize>a.batchStart * <usize>a.length;
  let ddt = a.ddt + start * ddtStep + o;
  if (lanes <= 0) {
    for (let i = 0; i < steps; i++, ddt += ddtStep) v128.store(ddt, zero);
    return;
  }
  let dt = a.dt + start * dtStep + o;
  const heads = <usize>round4(a.heads) << 2;
  const bias = v128.load(a.dtBias + o);
  const rate = rateOf(v128.load(a.aLog + o));
  let biasSum = zero;
  let aLogSum = zero;
  let inputs = a.inputSums + o;
  let decays = a.decaySums + o;
  for (let b = 0; b < a.batchCount; b++) {
    let rowBias = zero;
    let rowALog = zero;
    for (let t = 0; t < a.length; t++, dt += dtStep, ddt += ddtStep) {
      const raw = f32x4.add(v128.load(dt), bias);
      const soft = softplus4(raw);
      const step = f32x4.min(f32x4.max(soft, f32x4.splat(a.dtMin)), f32x4.splat(a.dtMax));
      let slope = v128.bitselect(f32x4.splat(1), sigmoid4(raw), f32x4.gt(raw, f32x4.splat(20)));
      slope = v128.and(slope, v128.and(f32x4.ge(soft, f32x4.splat(a.dtMin)), f32x4.le(soft, f32x4.splat(a.dtMax))));
      let input = zero;
      let decay = zero;
      for (let p = 0; p < a.parts; p++, inputs += heads, decays += heads) {
        input = f32x4.add(input, v128.load(inputs));
        decay = f32x4.add(decay, v128.load(decays));
      }
      // Where the decay was held up nothing depends on it.
      decay = f32x4.mul(f32x4.neg(rate), decay);
      decay = v128.and(decay, f32x4.gt(decayOf(rate, step), f32x4.splat(SMALLEST_DECAY)));
      const change = keepLanes(f32x4.mul(f32x4.add(input, decay), slope), lanes);
      v128.store(ddt, change);
      rowBias = f32x4.add(rowBias, change);
      rowALog = madd(decay, step, rowALog);
    }
    biasSum = f32x4.add(biasSum, rowBias);
    aLogSum = f32x4.add(aLogSum, rowALog);
  }
  if (a.dDtBias != 0) addTo(a.dDtBias + o, biasSum, lanes);
  if (a.dALog != 0) addTo(a.dALog + o, aLogSum, lanes);
  if (a.dD != 0) finishSkip(a, h, min(h + 4, a.heads));
}

@inline
function addTo(target: usize, sum: v128, lanes: i32): void {
  v128.store(target, f32x4.add(v128.load(target), keepLanes(sum, lanes)));
}

/** dD of some heads: by channel, or by head. */
function finishSkip(a: ScanBackwardArguments, head: i32, end: i32): void {
  const P = a.headdim;
  const rowBytes = <usize>round4(a.heads * P) << 2;
  for (let h = head; h < end; h++) {
    let sum: f32 = 0;
    for (let c = h * P; c < (h + 1) * P; c++) {
      const o = <usize>c << 2;
      let channel: f32 = 0;
      for (let b = 0; b < a.batchCount; b++) channel += load<f32>(a.skipSums + <usize>b * rowBytes + o);
      if (a.dHasHdim) store<f32>(a.dD + o, load<f32>(a.dD + o) + channel);
      else sum += channel;
    }
    if (!a.dHasHdim) store<f32>(a.dD + (<usize>h << 2), load<f32>(a.dD + (<usize>h << 2)) + sum);
  }
}
