import type { HostValue, Reference } from '../cases.ts';

/** x * silu(z) in float64; shared with `gated_norm`. */
export function gateRows(x: HostValue, z: HostValue): HostValue {
  return { shape: x.shape, data: x.data.map((value, i) => (value * z.data[i]!) / (1 + Math.exp(-z.data[i]!))) };
}

export const gatedSiluReference: Reference = ({ x, z }) => ({ y: gateRows(x!, z!) });
