import type { HostValue, Reference } from '../cases.ts';
import { normRows } from '../norm/reference.ts';
import { gateRows } from '../gated-silu/reference.ts';

export const gatedNormReference: Reference = ({ x, z, weight }, { eps, normBeforeGate }) => {
  const norm = (value: HostValue): HostValue => normRows(value, weight!, undefined, eps as number, false);
  return { y: normBeforeGate ? gateRows(norm(x!), z!) : norm(gateRows(x!, z!)) };
};
