import type { Reference } from '../cases.ts';

export const adamwReference: Reference = ({ weight, gradient, dM, dV, factor, settings }, { decay }) => {
  const [lr, beta1, beta2, eps, weightDecay, correction1, correction2] = settings!.data as unknown as number[];
  const shape = weight!.shape;
  const scaled = gradient!.data.map((value) => value * factor!.data[0]!);
  const m = dM!.data.map((value, i) => beta1! * value + (1 - beta1!) * scaled[i]!);
  const v = dV!.data.map((value, i) => beta2! * value + (1 - beta2!) * scaled[i]! ** 2);
  const shrink = decay ? 1 - lr! * weightDecay! : 1;
  const data = weight!.data.map(
    (value, i) => value * shrink - ((lr! / correction1!) * m[i]!) / (Math.sqrt(v[i]! / correction2!) + eps!),
  );
  return {
    weight: { shape, data },
    gradient: { shape, data: new Float64Array(data.length) },
    dM: { shape, data: m },
    dV: { shape, data: v },
  };
};
