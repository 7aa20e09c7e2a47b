import type { HostValue, Reference } from '../cases.ts';

/** Gradients of a row norm in float64; shared with `gated_norm_backward`. */
export function normRowsBackward(
  x: HostValue,
  weight: HostValue,
  dy: HostValue,
  eps: number,
  center: boolean,
): { dx: Float64Array; dWeight: Float64Array; dBias: Float64Array } {
  const width = x.shape.at(-1)!;
  const dx = new Float64Array(x.data.length);
  const dWeight = new Float64Array(width);
  const dBias = new Float64Array(width);
  const mean = (of: (i: number) => number): number =>
    Array.from({ length: width }, (_, i) => of(i)).reduce((a, b) => a + b, 0) / width;
  for (let row = 0; row < dx.length; row += width) {
    const middle = center ? mean((i) => x.data[row + i]!) : 0;
    const r = 1 / Math.sqrt(mean((i) => (x.data[row + i]! - middle) ** 2) + eps);
    const hat = (i: number): number => (x.data[row + i]! - middle) * r;
    const g = (i: number): number => weight.data[i]! * dy.data[row + i]!;
    const meanG = center ? mean(g) : 0;
    const meanGHat = mean((i) => g(i) * hat(i));
    for (let i = 0; i < width; i++) {
      dx[row + i] = r * (g(i) - meanG - hat(i) * meanGHat);
      dWeight[i]! += dy.data[row + i]! * hat(i);
      dBias[i]! += dy.data[row + i]!;
    }
  }
  return { dx, dWeight, dBias };
}

/** `before` plus `change`, as gradient buffers accumulate. */
export function accumulated(before: HostValue | undefined, change: Float64Array): HostValue | undefined {
  return before && { shape: before.shape, data: before.data.map((value, i) => value + (change[i] ?? 0)) };
}

export const normBackwardReference: Reference = ({ x, weight, dy, dSum, dWeight, dBias }, { eps, center }) => {
  const made = normRowsBackward(x!, weight!, dy!, eps as number, center as boolean);
  const results: Record<string, HostValue> = {
    dx: { shape: x!.shape, data: made.dx.map((value, i) => value + (dSum?.data[i] ?? 0)) },
  };
  if (dWeight) results['dWeight'] = accumulated(dWeight, made.dWeight)!;
  if (dBias) results['dBias'] = accumulated(dBias, made.dBias)!;
  return results;
};
