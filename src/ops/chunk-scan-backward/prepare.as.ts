/**
 * What all heads share, and their step sizes and decays: the first call of the scan's gradient. For every chunk it
 * writes B and C transposed, and the products b[j] c[i] of its steps.
 */

import { keepLanes, madd, shareStart, softplus4 } from '../as/simd.as';
import { decayOf, rateOf, transpose4 } from '../chunk-scan/arguments.as';
import { CHUNK, STEP_ROW, ScanBackwardArguments, chunksOf, diagonalOf, inputRows, outputRows, productRows, round4 } from './arguments.as';

/** exp(-20). Decays are held above it, an error of 2e-9 of the state they act on. */
export const SMALLEST_DECAY: f32 = 2.0611537e-9;

export function scanBackwardPrepare(args: usize, thread: i32, threads: i32): void {
  const a = changetype<ScanBackwardArguments>(args);
  const chunks = chunksOf(a);
  const total = a.batchCount * chunks;
  const end = shareStart(total, 1, thread + 1, threads);
  for (let unit = shareStart(total, 1, thread, threads); unit < end; unit++) {
    const row = unit / chunks;
    prepareChunk(a, row, unit - row * chunks);
  }
}

function prepareChunk(a: ScanBackwardArguments, row: i32, chunk: i32): void {
  const t = chunk * CHUNK;
  const steps = min(CHUNK, a.length - t);
  const first = <usize>(a.batchStart + row) * <usize>a.length + <usize>t;
  const inputs = inputRows(a, row, chunk);
  const outputs = outputRows(a, inputs);
  transposeRows(a.b + ((first * <usize>a.bStride) << 2), <usize>a.bStride << 2, steps, a.dState, inputs);
  transposeRows(a.c + ((first * <usize>a.cStride) << 2), <usize>a.cStride << 2, steps, a.dState, outputs);
  products(inputs, outputs, a.dState, productRows(a, inputs), diagonalOf(a, inputs));
  stepRows(a, first, <usize>row * <usize>a.length + <usize>t, steps);
}

/** `steps` rows of `width` to [width rounded up to 4][CHUNK], zeros for what is not there. */
function transposeRows(from: usize, fromStep: usize, steps: i32, width: i32, to: usize): void {
  const zero = f32x4.splat(0);
  for (let n = 0; n < width; n += 4, to += 4 * STEP_ROW) {
    const column = from + (<usize>n << 2);
    const lanes = width - n;
    for (let i = 0; i < CHUNK; i += 4) {
      const at = to + (<usize>i << 2);
      const source = column + <usize>i * fromStep;
      v128.store(at, i < steps ? keepLanes(v128.load(source), lanes) : zero);
      v128.store(at, i + 1 < steps ? keepLanes(v128.load(source + fromStep), lanes) : zero, 128);
      v128.store(at, i + 2 < steps ? keepLanes(v128.load(source + 2 * fromStep), lanes) : zero, 256);
      v128.store(at, i + 3 < steps ? keepLanes(v128.load(source + 3 * fromStep), lanes) : zero, 384);
      transpose4(at, STEP_ROW, at, STEP_ROW);
    }
  }
}

/** Products of the rows of B' and the columns of C': [j][i], strictly above the diagonal, and the diagonal apart. */
function products(inputs: usize, outputs: usize, dState: i32, to: usize, diagonal: usize): void {
  for (let j = 0; j < CHUNK; j += 4) {
    for (let i = 0; i < CHUNK; i += 4) {
      const at = to + <usize>j * STEP_ROW + (<usize>i << 2);
      let p0 = f32x4.splat(0);
      let p1 = p0;
      let p2 = p0;
      let p3 = p0;
      if (i >= j) {
        let b = inputs + (<usize>j << 2);
        let c = outputs + (<usize>i << 2);
        for (let n = 0; n < dState; n++, b += STEP_ROW, c += STEP_ROW) {
          const c4 = v128.load(c);
          p0 = madd(v128.load32_splat(b), c4, p0);
          p1 = madd(v128.load32_splat(b, 4), c4, p1);
          p2 = madd(v128.load32_splat(b, 8), c4, p2);
          p3 = madd(v128.load32_splat(b, 12), c4, p3);
        }
        if (i == j) {
          const low = v128.shuffle<f32>(p0, p1, 0, 5, 0, 5);
          const high = v128.shuffle<f32>(p2, p3, 2, 7, 2, 7);
          v128.store(diagonal + (<usize>j << 2), v128.shuffle<f32>(low, high, 0, 1, 4, 5));
          p0 = v128.and(p0, i32x4(0, -1, -1, -1));
          p1 = v128.and(p1, i32x4(0, 0, -1, -1));
          p2 = v128.and(p2, i32x4(0, 0, 0, -1));
          p3 = f32x4.splat(0);
        }
      }
      v128.store(at, p0);
      v128.store(at, p1, 128);
      v128.store(at, p2, 256);
      v128.store(at, p3, 384);
    }
  }
}

/** clamp(softplus(raw + bias)) and exp(A * that), four heads at a time. */
function stepRows(a: ScanBackwardArguments, first: usize, to: usize, steps: i32): void {
  const heads = <usize>round4(a.heads) << 2;
  const dtStep = <usize>a.dtStride << 2;
  for (let h: usize = 0; h < heads; h += 16) {
    const bias = v128.load(a.dtBias + h);
    const rate = rateOf(v128.load(a.aLog + h));
    let dt = a.dt + first * dtStep + h;
    let at = to * heads + h;
    for (let i = 0; i < steps; i++, dt += dtStep, at += heads) {
      const soft = softplus4(f32x4.add(v128.load(dt), bias));
      const step = f32x4.min(f32x4.max(soft, f32x4.splat(a.dtMin)), f32x4.splat(a.dtMax));
      v128.store(a.steps + at, step);
      v128.store(a.decays + at, f32x4.max(decayOf(rate, step), f32x4.splat(SMALLEST_DECAY)));
    }
  }
}
