import type { HostValue, Reference } from '../cases.ts';

/** Gradients of x * silu(z) in float64; shared with `gated_norm_backward`. */
export function gateRowsBackward(x: HostValue, z: HostValue, dy: HostValue): { dx: Float64Array; dz: Float64Array } {
  const sigmoid = z.data.map((value) => 1 / (1 + Math.exp(-value)));
  return {
    dx: dy.data.map((value, i) => value * z.data[i]! * sigmoid[i]!),
    dz: dy.data.map((value, i) => value * x.data[i]! * sigmoid[i]! * (1 + z.data[i]! * (1 - sigmoid[i]!))),
  };
}

export const gatedSiluBackwardReference: Reference = ({ x, z, dy }) => {
  const { dx, dz } = gateRowsBackward(x!, z!, dy!);
  return { dx: { shape: x!.shape, data: dx }, dz: { shape: x!.shape, data: dz } };
};
