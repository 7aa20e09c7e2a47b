import type { HostValue, Reference } from '../cases.ts';
import { inputGradient } from '../linear-input-backward/reference.ts';
import { addedWeightGradient } from '../linear-weight-backward/reference.ts';
import { linearCrossEntropyReference } from '../linear-cross-entropy/reference.ts';
import { linearRows } from '../linear/reference.ts';

export const linearCrossEntropyBackwardReference: Reference = ({ x, weight, targets, dLoss, dWeight }, attributes) => {
  const vocabulary = weight!.shape[0]!;
  const segments = [{ start: 0, count: vocabulary }];
  const dLogits = linearRows(x!, weight!, undefined, segments);
  for (const [t, target] of targets!.data.entries()) {
    const row = dLogits.data.subarray(t * vocabulary, (t + 1) * vocabulary);
    const largest = row.reduce((a, b) => Math.max(a, b), -Infinity);
    const total = row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
    const scale = target < 0 ? 0 : dLoss!.data[t]!;
    for (const [v, logit] of row.entries()) row[v] = scale * (Math.exp(logit - largest) / total - (v === target ? 1 : 0));
  }
  const results: Record<string, HostValue> = {
    ...linearCrossEntropyReference({ x: x!, weight: weight!, targets: targets! }, attributes),
    dx: inputGradient(dLogits, weight!, segments, x!.shape.at(-1)!),
  };
  if (dWeight) results['dWeight'] = addedWeightGradient(x!, dLogits, dWeight, segments);
  return results;
};
