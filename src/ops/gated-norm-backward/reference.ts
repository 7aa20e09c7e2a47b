import type { HostValue, Reference } from '../cases.ts';
import { gateRowsBackward } from '../gated-silu-backward/reference.ts';
import { gateRows } from '../gated-silu/reference.ts';
import { accumulated, normRowsBackward } from '../norm-backward/reference.ts';
import { normRows } from '../norm/reference.ts';

export const gatedNormBackwardReference: Reference = ({ x, z, weight, dy, dWeight }, { eps, normBeforeGate }) => {
  const epsilon = eps as number;
  const { shape } = x!;
  const results: Record<string, HostValue> = {};
  const finish = (dx: Float64Array, dz: Float64Array, change: Float64Array): Record<string, HostValue> => {
    results['dx'] = { shape, data: dx };
    results['dz'] = { shape, data: dz };
    if (dWeight) results['dWeight'] = accumulated(dWeight, change)!;
    return results;
  };
  if (normBeforeGate) {
    const gate = gateRowsBackward(normRows(x!, weight!, undefined, epsilon, false), z!, dy!);
    const norm = normRowsBackward(x!, weight!, { shape, data: gate.dx }, epsilon, false);
    return finish(norm.dx, gate.dz, norm.dWeight);
  }
  const norm = normRowsBackward(gateRows(x!, z!), weight!, dy!, epsilon, false);
  const gate = gateRowsBackward(x!, z!, { shape, data: norm.dx });
  return finish(gate.dx, gate.dz, norm.dWeight);
};
