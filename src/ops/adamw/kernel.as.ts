/** AdamW over one buffer; elements are dealt to the threads. Buffers end on whole vectors or in slack, so no tail. */

import { madd, shareStart } from '../as/simd.as';

@unmanaged
class AdamwArguments {
  weight: usize;
  gradient: usize;
  m: usize;
  v: usize;
  factor: usize;
  settings: usize;
  count: i32;
  decay: i32;
}

export function adamw(address: usize, thread: i32, threads: i32): void {
  const args = changetype<AdamwArguments>(address);
  const factor = load<f32>(args.factor);
  if (factor == 0) return;
  const settings = args.settings;
  const lr = load<f32>(settings);
  const beta1 = load<f32>(settings, 4);
  const beta2 = load<f32>(settings, 8);
  const keep = f32x4.splat(args.decay != 0 ? 1 - lr * load<f32>(settings, 16) : 1);
  const step = f32x4.splat(-lr / load<f32>(settings, 20));
  const inverse = f32x4.splat(1 / sqrt<f32>(load<f32>(settings, 24)));
  const eps = f32x4.splat(load<f32>(settings, 12));
  const first = f32x4.splat(beta1);
  const second = f32x4.splat(beta2);
  const firstRest = f32x4.splat((1 - beta1) * factor);
  const secondRest = f32x4.splat((1 - beta2) * factor * factor);
  const start = <usize>shareStart(args.count, 16, thread, threads) << 2;
  const end = <usize>shareStart(args.count, 16, thread + 1, threads) << 2;
  for (let i = start; i < end; i += 16) {
    const g = v128.load(args.gradient + i);
    const m = madd(firstRest, g, f32x4.mul(first, v128.load(args.m + i)));
    const v = madd(secondRest, f32x4.mul(g, g), f32x4.mul(second, v128.load(args.v + i)));
    const scale = f32x4.add(f32x4.mul(f32x4.sqrt(v), inverse), eps);
    v128.store(args.m + i, m);
    v128.store(args.v + i, v);
    v128.store(args.weight + i, madd(step, f32x4.div(m, scale), f32x4.mul(keep, v128.load(args.weight + i))));
    v128.store(args.gradient + i, f32x4.splat(0));
  }
}
