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
import { Block, byChannel, loadFactors, makeBlock, planRun, stateBytes } from './block.as';
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
  memory.fill(k.states, 0, stateBytes(a));
  const last = chunksOf(a) - 1;
  const xStep = <usize>a.xStride << 2;
  let x = a.x + (<usize>(a.batchStart + row) * <usize>a.length) * xStep + (<usize>k.channel << 2);
  for (let chunk = 0; chunk < last; chunk++) {
    loadFactors(a, k, row, chunk, CHUNK);
    for (let i: usize = 0; i < <usize>CHUNK * CHANNEL_ROW; i += CHANNEL_ROW, x += xStep) {
      for (let c = 0; c < k.width; c += 4) {
        const o = <usize>c << 2;
        const factor = f32x4.mul(byChannel(k, k.left + i, o), byChannel(k, k.steps + i, o));
        v128.store(k.inputs + i + o, f32x4.mul(keepLanes(v128.load(x + o), k.width - c), factor));
      }
    }
    const from = k.states + <usize>chunk * stateBytes(a);
    carry(a, k, from, from + stateBytes(a), inputRows(a, row, chunk), k.inputs, CHUNK);
  }
}

/** to = lastCarried * from + A x, A in rows of steps and x in rows of channels. */
function carry(a: ScanBackwardArguments, k: Block, from: usize, to: usize, rows: usize, x: usize, count: i32): void {
  const xBytes = <usize>count * CHANNEL_ROW;
  const width = <usize>k.tiled << 2;
  for (let n: usize = 0; n < stateBytes(a); n += 4 * CHANNEL_ROW, rows += 4 * STEP_ROW) {
    for (let c: usize = 0; c < width; c += 32) tileState(from + n + c, to + n + c, rows, x + c, x + c + xBytes, k.lastCarried + c);
  }
}

function walkBack(a: ScanBackwardArguments, k: Block, row: i32, rowSums: usize): void {
  const dState = <usize>round4(a.dState);
  const chunks = chunksOf(a);
  for (let chunk = chunks - 1; chunk >= 0; chunk--) {
    const count = min(CHUNK, a.length - chunk * CHUNK);
    const inputs = inputRows(a, row, chunk);
    const outputs = outputRows(a, inputs);
    const state = k.states + <usize>chunk * stateBytes(a);
    const dB = chunkSums(a, rowSums, chunk);
    const dC = dB + dState * STEP_ROW;
    loadFactors(a, k, row, chunk, count);
    loadRows(a, k, row, chunk, count);
    memory.fill(k.along, 0, <usize>k.heads * STEP_ROW);
    if (chunk < chunks - 1) {
      boundary(a, k, state + stateBytes(a));
      inputsOfState(a, k, inputs, count);
      for (let i = 0; i < count; i += 8) {
        const o = <usize>i << 2;
        addProducts(dB + o, dB + o + dState * STEP_ROW, k.adjoint, k.inputsT + o, k.inputsT + o + <usize>k.width * STEP_ROW);
      }
    } else {
      memory.fill(k.boundary, 0, CHANNEL_ROW);
      memory.fill(k.z, 0, <usize>count * CHANNEL_ROW);
      if (chunk > 0) memory.fill(k.adjoint, 0, stateBytes(a));
    }
    if (chunk > 0) {
      for (let i = 0; i < count; i += 8) outputsOfHeads(k, dC, dState, state, k.outputsT, outputs, i);
    }
    pairs(k, dC + dState * STEP_ROW, productRows(a, inputs), count);
    finishRows(a, k, row, chunk, count, diagonalOf(a, inputs));
    if (chunk > 0) carry(a, k, k.adjoint, k.adjoint, outputs, k.outputs, count);
  }
  memory.copy(a.skipSums + ((<usize>row * <usize>round4(a.heads * a.headdim) + <usize>k.channel) << 2), k.skipSums, <usize>k.width << 2);
}

/** x and dy of a chunk, and both by their factors, by channel and by step; zeros up to whole tiles of 8 steps. */
function loadRows(a: ScanBackwardArguments, k: Block, row: i32, chunk: i32, count: i32): void {
  const first = <usize>(a.batchStart + row) * <usize>a.length + <usize>(chunk * CHUNK);
  const xStep = <usize>a.xStride << 2;
  const dyStep = <usize>a.dyStride << 2;
  let x = a.x + first * xStep + (<usize>k.channel << 2);
  let dy = a.dy + first * dyStep + (<usize>k.channel << 2);
  const end = <usize>count * CHANNEL_ROW;
  for (let i: usize = 0; i < end; i += CHANNEL_ROW, x += xStep, dy += dyStep) {
    for (let c = 0; c < k.width; c += 4) {
      const o = <usize>c << 2;
      const lanes = k.width - c;
      const x4 = keepLanes(v128.load(x + o), lanes);
      const dy4 = keepLanes(v128.load(dy + o), lanes);
      const left = byChannel(k, k.left + i, o);
      v128.store(k.x + i + o, x4);
      v128.store(k.dy + i + o, dy4);
      v128.store(k.factors + i + o, left);
      v128.store(k.inputs + i + o, f32x4.mul(x4, f32x4.mul(left, byChannel(k, k.steps + i, o))));
      v128.store(k.outputs + i + o, f32x4.mul(dy4, byChannel(k, k.carried + i, o)));
    }
  }
  const rest = <usize>(((count + 7) & ~7) - count) * CHANNEL_ROW;
  memory.fill(k.inputs + end, 0, rest);
  memory.fill(k.outputs + end, 0, rest);
  transposeSteps(k, k.inputs, k.inputsT, 0, count);
  transposeSteps(k, k.outputs, k.outputsT, 0, count);
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

/** <G, S> by channel, with S at the chunk's end. */
function boundary(a: ScanBackwardArguments, k: Block, state: usize): void {
  const bytes = stateBytes(a);
  for (let c: usize = 0; c < <usize>k.width << 2; c += 16) {
    let s0 = f32x4.splat(0);
    let s1 = s0;
    const end = k.adjoint + c + bytes;
    for (let g = k.adjoint + c, s = state + c; g < end; g += 2 * CHANNEL_ROW, s += 2 * CHANNEL_ROW) {
      s0 = madd(v128.load(g), v128.load(s), s0);
      s1 = madd(v128.load(g, 256), v128.load(s, 256), s1);
    }
    v128.store(k.boundary + c, f32x4.add(s0, s1));
  }
}

/** z = left * (B G). */
function inputsOfState(a: ScanBackwardArguments, k: Block, inputs: usize, count: i32): void {
  const width = <usize>k.tiled << 2;
  for (let i = 0; i < count; i += 4) {
    const at = <usize>i * CHANNEL_ROW;
    for (let c: usize = 0; c < width; c += 32) {
      tileInputs(k.z + at + c, inputs + (<usize>i << 2), k.adjoint + c, k.adjoint + c + stateBytes(a), k.factors + at + c);
    }
  }
}

/** to += A x head by head for 8 steps from `i` on; sums by rows of `weights` are added to `along`. */
function outputsOfHeads(k: Block, to: usize, rows: usize, a: usize, x: usize, weights: usize, i: i32): void {
  const o = <usize>i << 2;
  const headSteps = <usize>k.headdim * STEP_ROW;
  const headBytes = <usize>k.headdim << 2;
  let along = k.along + o;
  x += o;
  for (let h = 0; h < k.heads; h++, a += headBytes, x += headSteps, along += STEP_ROW) {
    addWeighedProducts(to + o, to + o + rows * STEP_ROW, a, x, x + headSteps, weights + o, along);
  }
}

/** The pairs of steps within the chunk. */
function pairs(k: Block, dW: usize, products: usize, count: i32): void {
  let t = 0;
  let before = 0;
  while (t < count) {
    const end = planRun(k, before, t, count);
    loadRun(k, t, end);
    const width = <usize>k.tiled << 2;
    for (let j = 0; j < end; j += 4) {
      const at = <usize>j * CHANNEL_ROW;
      const first = max(t, j);
      const x = k.runOutputs + <usize>first * CHANNEL_ROW;
      const xEnd = k.runOutputs + <usize>end * CHANNEL_ROW;
      const row = products + <usize>j * STEP_ROW + (<usize>first << 2);
      for (let c: usize = 0; c < width; c += 32) tileRun(k.z + at + c, row, x + c, xEnd + c, k.factors + at + c);
    }
    for (let i = t & ~7; i < end; i += 8) {
      outputsOfHeads(k, dW, <usize>round4(min(i + 8, end)), k.runInputs, k.runOutputsT, products, i);
    }
    before = t;
    t = end;
  }
}

/** Operands of a run's pairs: outputs of its own steps alone, inputs of all steps before its end. */
function loadRun(k: Block, t: i32, end: i32): void {
  const from = t & ~7;
  memory.fill(k.runOutputs + <usize>from * CHANNEL_ROW, 0, <usize>(t - from) * CHANNEL_ROW);
  memory.fill(k.runOutputs + <usize>end * CHANNEL_ROW, 0, <usize>(((end + 7) & ~7) - end) * CHANNEL_ROW);
  const rest = <usize>(round4(end) - end) * CHANNEL_ROW;
  memory.fill(k.runInputs + <usize>end * CHANNEL_ROW, 0, rest);
  memory.fill(k.factors + <usize>end * CHANNEL_ROW, 0, rest);
  const width = <usize>k.width << 2;
  for (let i: usize = 0; i < <usize>end * CHANNEL_ROW; i += CHANNEL_ROW) {
    for (let c: usize = 0; c < width; c += 16) {
      const inverse = byChannel(k, k.inverse + i, c);
      v128.store(k.factors + i + c, inverse);
      v128.store(k.runInputs + i + c, f32x4.mul(v128.load(k.x + i + c), f32x4.mul(inverse, byChannel(k, k.steps + i, c))));
    }
  }
  for (let i = <usize>t * CHANNEL_ROW; i < <usize>end * CHANNEL_ROW; i += CHANNEL_ROW) {
    for (let c: usize = 0; c < width; c += 16) {
      v128.store(k.runOutputs + i + c, f32x4.mul(v128.load(k.dy + i + c), byChannel(k, k.scale + i, c)));
    }
  }
  transposeSteps(k, k.runOutputs, k.runOutputsT, from, end);
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

/** Sums of a chunk by head, dx, and the sums for d. */
function finishRows(a: ScanBackwardArguments, k: Block, row: i32, chunk: i32, count: i32, diagonal: usize): void {
  const t = chunk * CHUNK;
  const headRow = <usize>(a.parts * round4(a.heads)) << 2;
  const at = (<usize>row * <usize>a.length + <usize>t) * headRow + (<usize>(k.part * round4(a.heads) + k.head) << 2);
  for (let h = 0; h < k.heads; h++) {
    const o = <usize>(h * k.headdim) << 2;
    const head = <usize>h << 2;
    let later: f32 = 0;
    for (let c = 0; c < k.headdim; c++) later += load<f32>(k.boundary + o + (<usize>c << 2));
    for (let i = count - 1; i >= 0; i--) {
      const channels = <usize>i * CHANNEL_ROW + o;
      const given = headSum(k.x + channels, k.z + channels, k.headdim);
      const same = headSum(k.x + channels, k.dy + channels, k.headdim);
      const step = load<f32>(k.steps + <usize>i * CHANNEL_ROW + head);
      later += load<f32>(k.along + <usize>h * STEP_ROW + (<usize>i << 2)) - step * given;
      const to = at + <usize>i * headRow + head;
      store<f32>(a.inputSums + to, given + load<f32>(diagonal + (<usize>i << 2)) * same);
      store<f32>(a.decaySums + to, later);
    }
  }
  const dxStep = <usize>a.dxStride << 2;
  let dx = a.dx + (<usize>(a.batchStart + row) * <usize>a.length + <usize>t) * dxStep + (<usize>k.channel << 2);
  const pads = k.isLast ? padded(a.heads * a.headdim) - a.heads * a.headdim : 0;
  for (let i = 0; i < count; i++, dx += dxStep) {
    const channels = <usize>i * CHANNEL_ROW;
    const product = v128.load32_splat(diagonal + (<usize>i << 2));
    for (let c = 0; c < k.width; c += 4) {
      const o = <usize>c << 2;
      const dy4 = v128.load(k.dy + channels + o);
      const sum = madd(product, dy4, v128.load(k.z + channels + o));
      const value = madd(byChannel(k, k.steps + channels, o), sum, f32x4.mul(v128.load(k.skip + o), dy4));
      v128.store(k.skipSums + o, madd(v128.load(k.x + channels + o), dy4, v128.load(k.skipSums + o)));
      if (c + 4 <= k.width) {
        v128.store(dx + o, value);
      } else {
        store<f32>(dx + o, f32x4.extract_lane(value, 0));
        if (c + 1 < k.width) store<f32>(dx + o, f32x4.extract_lane(value, 1), 4);
        if (c + 2 < k.width) store<f32>(dx + o, f32x4.extract_lane(value, 2), 8);
      }
    }
    if (pads > 0) memory.fill(dx + (<usize>k.width << 2), 0, <usize>pads << 2);
  }
}
