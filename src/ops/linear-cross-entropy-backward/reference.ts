import type { HostValue, Reference } from '../cases.ts';
import { inputGradient } from '../linear-input-backward/reference.ts';
import { addedWeightGradient } from '../linear-weight-backward/reference.ts';
import { linearCrossEntropyReference } from '../linear-cross-entropy/reference.ts';
import { linearRows } from '../linear/reference.ts';

function softmax(logits: Float64Array): Float64Array {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = logits.map((logit) => Math.exp(logit - largest));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

export const linearCrossEntropyBackwardReference: Reference = ({ x, weight, targets, dLoss, teacher, dWeight }, attributes) => {
  const vocabulary = weight!.shape[0]!;
  const segments = [{ start: 0, count: vocabulary }];
  const dLogits = linearRows(x!, weight!, undefined, segments);
  const share = teacher ? (attributes['distill'] as number) : 0;
  const taught = teacher && linearRows(teacher, weight!, undefined, segments).data;
  for (const [t, target] of targets!.data.entries()) {
    const row = dLogits.data.subarray(t * vocabulary, (t + 1) * vocabulary);
    const own = softmax(row);
    const soft = taught && softmax(taught.subarray(t * vocabulary, (t + 1) * vocabulary));
    const scale = target < 0 ? 0 : dLoss!.data[t]!;
    for (const v of row.keys()) row[v] = scale * (own[v]! - (1 - share) * (v === target ? 1 : 0) - share * (soft?.[v] ?? 0));
  }
  const results: Record<string, HostValue> = {
    ...linearCrossEntropyReference({ x: x!, weight: weight!, targets: targets! }, attributes),
    dx: inputGradient(dLogits, weight!, segments, x!.shape.at(-1)!),
  };
  if (dWeight) results['dWeight'] = addedWeightGradient(x!, dLogits, dWeight, segments);
  return results;
};
