/**
 * The scan's gradient as products of matrices, by chunks: the state-space duality of Dao & Gu 2024, section 6, run
 * backwards. Channels are the columns (or the sums) of all products, whatever heads they belong to.
 *
 * A block of channels first walks forward and keeps the state S at every chunk's start. Then it walks back with G, the
 * adjoint of the state at the chunk's end. With C, B the chunk's rows, v = carried * dy, u = left * dt * x, and P the
 * products b[j] c[i] of steps j < i:
 *
 *     z = left * (B G) + the pairs of steps in the chunk, dx = d * dy + dt * (z + (b c) * dy)
 *     dC' += S v', dB' += G u' and W' += the pairs of steps, summed over all channels
 *     G = carried[last] * G + C' v at the chunk's start
 *
 * For pairs of steps a chunk is cut into runs, in which pairs decay by scale[i] / scale[j]: a run ends before scale
 * falls below 1e-18 in a head, so nothing overflows. Outputs of a run see the inputs of it and of all runs before.
 *
 * The gradient through the decays needs, per head, D[t] = sum over i >= t, j < t of what step j adds to dy[i]' y[i].
 * It is the sum over the steps from t on of r - s, r[i] what dy[i]' y[i] takes from earlier steps, s[j] what x[j] gives
 * to later ones, and <G, S> at the chunk's end. r comes out of the products for dC' and W' (by rows of C' and P), s is
 * dt * x' z.
 */

import { keepLanes, madd, padded, shareStart, sumLanes } from '../as/simd.as';
import { transpose4 } from '../chunk-scan/arguments.as';
import {
  CHUNK, STEP_ROW, ScanBackwardArguments, chunkSums, chunksOf, diagonalOf, inputRows, outputRows, productRows, round4, sumRowBytes, sumsOf,
} from './arguments.as';
import {
  ADJOINT, ALONG, BOUNDARY, Block, CARRIED, DY, FACTORS, INPUTS, INPUTS_T, INVERSE, LAST_CARRIED, LEFT, OUTPUTS, OUTPUTS_T, RUN_INPUTS, RUN_OUTPUTS,
  RUN_OUTPUTS_T, SCALE, SKIP, SKIP_SUMS, STEPS, X, Z, factorOf, keepState, loadFactors, makeBlock, planRun, recallState, stateBytes,
} from './block.as';
import { CHANNEL_ROW, addProducts, addWeighedProducts, tileInputs, tileRun, tileState } from './tiles.as';

export function scanBackward(args: usize, thread: i32, threads: i32): void {
  const a = changetype<ScanBackwardArguments>(args);
  const own = a.own + <usize>thread * <usize>a.ownBytes;
  const total = a.batchCount * a.blocks;
  const end = shareStart(total, 1, thread + 1, threads);
  const start = shareStart(total, 1, thread, threads);
  // Who adds up a row asks every thread between its first and its last, even one without any work.
  if (start == end && start < total) memory.fill(sumsOf(a, thread, start / a.blocks), 0, sumRowBytes(a));
  let begun = -1;
  for (let unit = start; unit < end; unit++) {
    const row = unit / a.blocks;
    const sums = sumsOf(a, thread, row);
    if (row != begun) memory.fill(sums, 0, sumRowBytes(a));
    begun = row;
    const k = makeBlock(a, own, unit - row * a.blocks);
    keepStates(a, k, row);
    walkBack(a, k, row, sums);
  }
}

/** The states at the starts of the chunks. */
function keepStates(a: ScanBackwardArguments, k: Block, row: i32): void {
  const last = chunksOf(a) - 1;
  const xStep = <usize>a.xStride << 2;
  const width = <usize>k.width << 2;
  let x = a.x + (<usize>(a.batchStart + row) * <usize>a.length) * xStep + (<usize>k.channel << 2);
  memory.fill(k.state, 0, stateBytes(a));
  for (let chunk = 0; chunk < last; chunk++) {
    loadFactors(a, k, row, chunk, CHUNK);
    for (let i = k.parts; i < k.parts + <usize>CHUNK * CHANNEL_ROW; i += CHANNEL_ROW, x += xStep) {
      for (let c: usize = 0; c < width; c += 16) {
        const factor = f32x4.mul(factorOf(k, i, LEFT, c), factorOf(k, i, STEPS, c));
        v128.store(i + c, f32x4.mul(keepLanes(v128.load(x + c), <i32>((width - c) >> 2)), factor), INPUTS);
      }
    }
    carry(a, k, k.state, inputRows(a, row, chunk), k.parts + INPUTS, CHUNK);
    keepState(a, k, chunk + 1);
  }
}

/** state = LAST_CARRIED * state + A x, A in rows of steps and x in rows of channels. */
function carry(a: ScanBackwardArguments, k: Block, state: usize, rows: usize, x: usize, count: i32): void {
  const xBytes = <usize>count * CHANNEL_ROW;
  const width = <usize>k.tiled << 2;
  for (const end = state + stateBytes(a); state < end; state += 4 * CHANNEL_ROW, rows += 4 * STEP_ROW) {
    for (let c: usize = 0; c < width; c += 32) tileState(state + c, rows, x + c, x + c + xBytes, k.parts + LAST_CARRIED + c);
  }
}

/** Chunks from the last to the first. */
function walkBack(a: ScanBackwardArguments, k: Block, row: i32, rowSums: usize): void {
  const dState = <usize>round4(a.dState);
  const parts = k.parts;
  const last = chunksOf(a) - 1;
  for (let chunk = last; chunk >= 0; chunk--) {
    const count = min(CHUNK, a.length - chunk * CHUNK);
    const inputs = inputRows(a, row, chunk);
    const outputs = outputRows(a, inputs);
    const dB = chunkSums(a, rowSums, chunk);
    const dC = dB + dState * STEP_ROW;
    loadFactors(a, k, row, chunk, count);
    loadRows(a, k, row, chunk, count);
    memory.fill(parts + ALONG, 0, <usize>k.heads * STEP_ROW);
    if (chunk < last) {
      // The state is still that of the chunk after this one.
      boundary(a, k);
      inputsOfState(a, k, inputs, count);
      addInputs(k, dB, dState, count);
    } else {
      memory.fill(parts + BOUNDARY, 0, CHANNEL_ROW);
      memory.fill(parts + Z, 0, <usize>count * CHANNEL_ROW);
      memory.fill(parts + ADJOINT, 0, stateBytes(a));
    }
    if (chunk > 0) {
      if (chunk < last) recallState(a, k, chunk);
      addOutputs(k, dC, dState, k.state, parts + OUTPUTS_T, outputs, 0, count);
    }
    pairs(k, dC + dState * STEP_ROW, productRows(a, inputs), count);
    finishRows(a, k, row, chunk, count, diagonalOf(a, inputs));
    if (chunk > 0) carry(a, k, parts + ADJOINT, outputs, parts + OUTPUTS, count);
  }
  memory.copy(a.skipSums + ((<usize>row * <usize>round4(a.heads * a.headdim) + <usize>k.channel) << 2), parts + SKIP_SUMS, <usize>k.width << 2);
}

/** x and dy of a chunk, and both by their factors, by channel and by step; zeros up to whole tiles of 8 steps. */
function loadRows(a: ScanBackwardArguments, k: Block, row: i32, chunk: i32, count: i32): void {
  const first = <usize>(a.batchStart + row) * <usize>a.length + <usize>(chunk * CHUNK);
  const xStep = <usize>a.xStride << 2;
  const dyStep = <usize>a.dyStride << 2;
  const width = <usize>k.width << 2;
  let x = a.x + first * xStep + (<usize>k.channel << 2);
  let dy = a.dy + first * dyStep + (<usize>k.channel << 2);
  const end = k.parts + <usize>count * CHANNEL_ROW;
  for (let i = k.parts; i < end; i += CHANNEL_ROW, x += xStep, dy += dyStep) {
    for (let c: usize = 0; c < width; c += 16) {
      const lanes = <i32>((width - c) >> 2);
      const left = factorOf(k, i, LEFT, c);
      const steps = factorOf(k, i, STEPS, c);
      const carried = factorOf(k, i, CARRIED, c);
      const x4 = keepLanes(v128.load(x + c), lanes);
      const dy4 = keepLanes(v128.load(dy + c), lanes);
      v128.store(i + c, x4, X);
      v128.store(i + c, dy4, DY);
      v128.store(i + c, left, FACTORS);
      v128.store(i + c, f32x4.mul(x4, f32x4.mul(left, steps)), INPUTS);
      v128.store(i + c, f32x4.mul(dy4, carried), OUTPUTS);
    }
  }
  const rest = <usize>(((count + 7) & ~7) - count) * CHANNEL_ROW;
  memory.fill(end + INPUTS, 0, rest);
  memory.fill(end + OUTPUTS, 0, rest);
  transposeSteps(k, k.parts + INPUTS, k.parts + INPUTS_T, 0, count);
  transposeSteps(k, k.parts + OUTPUTS, k.parts + OUTPUTS_T, 0, count);
}

/** Rows of channels to rows of steps, from step `first` (a multiple of 8) to `end` rounded up to one. */
function transposeSteps(k: Block, from: usize, to: usize, first: i32, end: i32): void {
  const stop = (end + 7) & ~7;
  for (let c = 0; c < k.width; c += 4) {
    for (let i = first; i < stop; i += 4) {
      transpose4(from + <usize>i * CHANNEL_ROW + (<usize>c << 2), CHANNEL_ROW, to + <usize>c * STEP_ROW + (<usize>i << 2), STEP_ROW);
    }
  }
}

/** <G, S> by channel, both at the chunk's end. */
function boundary(a: ScanBackwardArguments, k: Block): void {
  const width = <usize>k.width << 2;
  const bytes = stateBytes(a);
  for (let c: usize = 0; c < width; c += 16) {
    let s0 = f32x4.splat(0);
    let s1 = s0;
    let g = k.parts + ADJOINT + c;
    for (let s = k.state + c; s < k.state + bytes; s += 2 * CHANNEL_ROW, g += 2 * CHANNEL_ROW) {
      s0 = madd(v128.load(g), v128.load(s), s0);
      s1 = madd(v128.load(g, CHANNEL_ROW), v128.load(s, CHANNEL_ROW), s1);
    }
    v128.store(k.parts + c, f32x4.add(s0, s1), BOUNDARY);
  }
}

/** z = left * (B G). */
function inputsOfState(a: ScanBackwardArguments, k: Block, inputs: usize, count: i32): void {
  const width = <usize>k.tiled << 2;
  for (let c: usize = 0; c < width; c += 32) {
    for (let i = 0; i < count; i += 4) {
      const at = <usize>i * CHANNEL_ROW + c;
      tileInputs(k.parts + Z + at, inputs + (<usize>i << 2), k.parts + ADJOINT + c, k.parts + ADJOINT + c + stateBytes(a), k.parts + FACTORS + at);
    }
  }
}

/** dB' += G u'. */
function addInputs(k: Block, dB: usize, rows: usize, count: i32): void {
  const end = <usize>k.width * STEP_ROW;
  for (let n: usize = 0; n < rows; n += 4) {
    for (let i = 0; i < count; i += 8) {
      const o = <usize>i << 2;
      addProducts(dB + n * STEP_ROW + o, k.parts + ADJOINT + n * CHANNEL_ROW, k.parts + INPUTS_T + o, k.parts + INPUTS_T + o + end);
    }
  }
}

/** to += A x head by head for steps `first` .. `end` in eights; sums by rows of `weights` are added to `along`. */
function addOutputs(k: Block, to: usize, rows: usize, a: usize, x: usize, weights: usize, first: i32, end: i32): void {
  const headSteps = <usize>k.headdim * STEP_ROW;
  for (let n: usize = 0; n < rows; n += 4) {
    for (let i = first; i < end; i += 8) {
      const o = <usize>i << 2;
      const at = n * STEP_ROW + o;
      addWeighedProducts(to + at, a + n * CHANNEL_ROW, x + o, headSteps, k.heads, weights + at, k.parts + ALONG + o);
    }
  }
}

/** The pairs of steps within the chunk. */
function pairs(k: Block, dW: usize, products: usize, count: i32): void {
  const parts = k.parts;
  const width = <usize>k.tiled << 2;
  for (let t = 0, end = 0; t < count; t = end) {
    end = planRun(k, t, count);
    loadRun(k, t, end);
    const xEnd = parts + RUN_OUTPUTS + <usize>end * CHANNEL_ROW;
    for (let j = 0; j < end; j += 4) {
      const at = parts + <usize>j * CHANNEL_ROW;
      const first = max(t, j);
      const x = parts + RUN_OUTPUTS + <usize>first * CHANNEL_ROW;
      const row = products + <usize>j * STEP_ROW + (<usize>first << 2);
      for (let c: usize = 0; c < width; c += 32) tileRun(at + Z + c, row, x + c, xEnd + c, at + FACTORS + c);
    }
    for (let i = t & ~7; i < end; i += 8) {
      addOutputs(k, dW, <usize>round4(min(i + 8, end)), parts + RUN_INPUTS, parts + RUN_OUTPUTS_T, products, i, i + 8);
    }
  }
}

/** Operands of a run's pairs: outputs of its own steps alone, inputs of all steps before its end. */
function loadRun(k: Block, t: i32, end: i32): void {
  const from = t & ~7;
  const width = <usize>k.width << 2;
  const first = k.parts + <usize>t * CHANNEL_ROW;
  const last = k.parts + <usize>end * CHANNEL_ROW;
  const rest = <usize>(round4(end) - end) * CHANNEL_ROW;
  memory.fill(k.parts + RUN_OUTPUTS + <usize>from * CHANNEL_ROW, 0, <usize>(t - from) * CHANNEL_ROW);
  memory.fill(last + RUN_OUTPUTS, 0, <usize>(((end + 7) & ~7) - end) * CHANNEL_ROW);
  memory.fill(last + RUN_INPUTS, 0, rest);
  memory.fill(last + FACTORS, 0, rest);
  for (let i = k.parts; i < last; i += CHANNEL_ROW) {
    for (let c: usize = 0; c < width; c += 16) {
      const inverse = factorOf(k, i, INVERSE, c);
      const factor = f32x4.mul(inverse, factorOf(k, i, STEPS, c));
      v128.store(i + c, inverse, FACTORS);
      v128.store(i + c, f32x4.mul(v128.load(i + c, X), factor), RUN_INPUTS);
    }
  }
  for (let i = first; i < last; i += CHANNEL_ROW) {
    for (let c: usize = 0; c < width; c += 16) {
      v128.store(i + c, f32x4.mul(v128.load(i + c, DY), factorOf(k, i, SCALE, c)), RUN_OUTPUTS);
    }
  }
  transposeSteps(k, k.parts + RUN_OUTPUTS, k.parts + RUN_OUTPUTS_T, from, end);
}

/** Sums of x * y over the channels of a head. */
@inline
function headSum(x: usize, y: usize, headdim: i32): f32 {
  let sum: f32 = 0;
  let c: usize = 0;
  if (headdim > 3) {
    let sums = f32x4.splat(0);
    const whole = <usize>(headdim & ~3) << 2;
    for (; c < whole; c += 16) sums = madd(v128.load(x + c), v128.load(y + c), sums);
    sum = sumLanes(sums);
  }
  for (const end = <usize>headdim << 2; c < end; c += 4) sum += load<f32>(x + c) * load<f32>(y + c);
  return sum;
}

/** Sums of a chunk by head, dx, and the sums for d: by channel, or of a whole head in the place of its first channel. */
function finishRows(a: ScanBackwardArguments, k: Block, row: i32, chunk: i32, count: i32, diagonal: usize): void {
  const t = chunk * CHUNK;
  const parts = k.parts;
  const headRow = <usize>(a.parts * round4(a.heads)) << 2;
  const at = (<usize>row * <usize>a.length + <usize>t) * headRow + (<usize>(k.part * round4(a.heads) + k.head) << 2);
  for (let h = 0; h < k.heads; h++) {
    const o = <usize>(h * k.headdim) << 2;
    const head = <usize>h << 2;
    const along = parts + ALONG + <usize>h * STEP_ROW;
    let later: f32 = 0;
    let skip: f32 = 0;
    for (let c = 0; c < k.headdim; c++) later += load<f32>(parts + o + (<usize>c << 2), BOUNDARY);
    for (let i = count - 1; i >= 0; i--) {
      const channels = parts + <usize>i * CHANNEL_ROW + o;
      const step = <usize>i << 2;
      const given = headSum(channels + X, channels + Z, k.headdim);
      const same = headSum(channels + X, channels + DY, k.headdim);
      const to = at + <usize>i * headRow + head;
      later += load<f32>(along + step) - load<f32>(parts + <usize>i * CHANNEL_ROW + head, STEPS) * given;
      skip += same;
      store<f32>(a.inputSums + to, given + load<f32>(diagonal + step) * same);
      store<f32>(a.decaySums + to, later);
    }
    if (!a.dHasHdim) store<f32>(parts + o, load<f32>(parts + o, SKIP_SUMS) + skip, SKIP_SUMS);
  }
  const dxStep = <usize>a.dxStride << 2;
  const width = <usize>k.width << 2;
  const whole = width & ~15;
  let dx = a.dx + (<usize>(a.batchStart + row) * <usize>a.length + <usize>t) * dxStep + (<usize>k.channel << 2);
  const pads = k.isLast ? padded(a.heads * a.headdim) - a.heads * a.headdim : 0;
  for (let i = parts; i < parts + <usize>count * CHANNEL_ROW; i += CHANNEL_ROW, dx += dxStep, diagonal += 4) {
    const product = v128.load32_splat(diagonal);
    for (let c: usize = 0; c < whole; c += 16) v128.store(dx + c, inputGradient(k, i, c, product));
    if (whole < width) storeLanes(dx + whole, inputGradient(k, i, whole, product), <i32>((width - whole) >> 2));
    if (pads > 0) memory.fill(dx + width, 0, <usize>pads << 2);
    if (a.dHasHdim) {
      for (let c: usize = 0; c < width; c += 16) {
        v128.store(parts + c, madd(v128.load(i + c, X), v128.load(i + c, DY), v128.load(parts + c, SKIP_SUMS)), SKIP_SUMS);
      }
    }
  }
}

/** d * dy + dt * (z + (b c) * dy). */
@inline
function inputGradient(k: Block, i: usize, c: usize, product: v128): v128 {
  const dy = v128.load(i + c, DY);
  const sum = madd(product, dy, v128.load(i + c, Z));
  return madd(factorOf(k, i, STEPS, c), sum, f32x4.mul(v128.load(k.parts + c, SKIP), dy));
}

/** The first 1 to 3 lanes. */
@inline
function storeLanes(to: usize, value: v128, lanes: i32): void {
  store<f32>(to, f32x4.extract_lane(value, 0));
  if (lanes > 1) store<f32>(to, f32x4.extract_lane(value, 1), 4);
  if (lanes > 2) store<f32>(to, f32x4.extract_lane(value, 2), 8);
}
