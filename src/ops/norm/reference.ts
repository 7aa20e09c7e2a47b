import type { HostValue, Reference } from '../cases.ts';

/** Normalises rows of `x` in float64; shared with `add_norm`. */
export function normRows(x: HostValue, weight: HostValue, bias: HostValue | undefined, eps: number, center: boolean): HostValue {
  const width = x.shape.at(-1)!;
  const data = new Float64Array(x.data.length);
  for (let row = 0; row < data.length; row += width) {
    let mean = 0;
    if (center) for (let i = 0; i < width; i++) mean += x.data[row + i]! / width;
    let square = 0;
    for (let i = 0; i < width; i++) square += (x.data[row + i]! - mean) ** 2 / width;
    for (let i = 0; i < width; i++) {
      data[row + i] = ((x.data[row + i]! - mean) / Math.sqrt(square + eps)) * weight.data[i]! + (bias?.data[i] ?? 0);
    }
  }
  return { shape: x.shape, data };
}

export const normReference: Reference = ({ x, weight, bias }, { eps, center }) => ({
  y: normRows(x!, weight!, bias, eps as number, center as boolean),
});
