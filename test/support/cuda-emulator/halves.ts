/** 16-bit floats in JavaScript numbers, by arithmetic: what tests compare the kernels' bits with. */

const FORMATS = { bf16: { fraction: 7, bias: 127 }, f16: { fraction: 10, bias: 15 } } as const;

export function decodeHalf(bits: number, element: 'bf16' | 'f16'): number {
  const { fraction, bias } = FORMATS[element];
  const exponent = (bits & 0x7fff) >> fraction;
  const rest = bits & ((1 << fraction) - 1);
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 2 * bias + 1) return rest ? NaN : sign * Infinity;
  if (exponent === 0) return sign * rest * 2 ** (1 - bias - fraction);
  return sign * (rest + 2 ** fraction) * 2 ** (exponent - bias - fraction);
}

/** Rounds a float32 to the nearest, ties to even. */
export function encodeHalf(x: number, element: 'bf16' | 'f16'): number {
  const { fraction, bias } = FORMATS[element];
  if (Number.isNaN(x)) return 0x7fff;
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const size = Math.abs(x);
  const infinity = (2 * bias + 1) << fraction;
  if (size === Infinity) return sign | infinity;
  let exponent = Math.max(1 - bias, Math.floor(Math.log2(size)));
  if (size >= 2 ** (exponent + 1)) exponent++;
  if (size < 2 ** exponent && exponent > 1 - bias) exponent--;
  const steps = size / 2 ** (exponent - fraction);
  const below = Math.floor(steps);
  const up = steps - below > 0.5 || (steps - below === 0.5 && below % 2 === 1);
  const rounded = below + (up ? 1 : 0);
  return sign | Math.min(infinity, rounded + ((exponent + bias - 1) << fraction));
}
