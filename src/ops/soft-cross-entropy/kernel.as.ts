/** Softmax cross-entropy of each row with a soft target; rows are dealt to the threads. */

import { exp4, keepLanes, maxLanes, padded, shareStart, sumLanes } from '../as/simd.as';

@unmanaged
class SoftCrossEntropyArguments {
  logits: usize;
  logitsStride: i32;
  targets: usize;
  targetsStride: i32;
  scale: usize;
  scaleStride: i32;
  loss: usize;
  lossStride: i32;
  dLogits: usize;
  dLogitsStride: i32;
  rows: i32;
  width: i32;
}

export function softCrossEntropy(address: usize, thread: i32, threads: i32): void {
  const args = changetype<SoftCrossEntropyArguments>(address);
  const end = shareStart(args.rows, 1, thread + 1, threads);
  for (let row = shareStart(args.rows, 1, thread, threads); row < end; row++) crossEntropyRow(args, row);
}

function crossEntropyRow(args: SoftCrossEntropyArguments, row: i32): void {
  const width = args.width;
  const bytes = <usize>padded(width) << 2;
  const logits = args.logits + (<usize>(row * args.logitsStride) << 2);
  const targets = args.targets + (<usize>(row * args.targetsStride) << 2);
  const dLogits = args.dLogits + (<usize>(row * args.dLogitsStride) << 2);
  const loss = args.loss + (<usize>(row * args.lossStride) << 2);
  let largest4 = f32x4.splat(-Infinity);
  for (let i: usize = 0; i < bytes; i += 16) {
    const lanes = width - <i32>(i >> 2);
    const value = v128.load(logits + i);
    largest4 = f32x4.max(largest4, v128.bitselect(value, f32x4.splat(-Infinity), i32x4.gt_s(i32x4.splat(lanes), i32x4(0, 1, 2, 3))));
  }
  const largest = maxLanes(largest4);
  let sum = f32x4.splat(0);
  let mass4 = f32x4.splat(0);
  let product = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const lanes = width - <i32>(i >> 2);
    const shifted = f32x4.sub(v128.load(logits + i), f32x4.splat(largest));
    const power = keepLanes(exp4(shifted), lanes);
    const target = keepLanes(v128.load(targets + i), lanes);
    v128.store(dLogits + i, power);
    sum = f32x4.add(sum, power);
    mass4 = f32x4.add(mass4, target);
    product = f32x4.add(product, f32x4.mul(target, keepLanes(shifted, lanes)));
  }
  const total = sumLanes(sum);
  const mass = sumLanes(mass4);
  memory.fill(loss, 0, 64);
  store<f32>(loss, mass * Mathf.log(total) - sumLanes(product));
  const scale = load<f32>(args.scale + (<usize>(row * args.scaleStride) << 2));
  const softmax = f32x4.splat((mass / total) * scale);
  for (let i: usize = 0; i < bytes; i += 16) {
    const target = keepLanes(v128.load(targets + i), width - <i32>(i >> 2));
    v128.store(dLogits + i, f32x4.sub(f32x4.mul(softmax, v128.load(dLogits + i)), f32x4.mul(f32x4.splat(scale), target)));
  }
}
