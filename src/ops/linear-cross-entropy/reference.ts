import type { Reference } from '../cases.ts';
import { linearRows } from '../linear/reference.ts';

export const linearCrossEntropyReference: Reference = ({ x, weight, targets }) => {
  const vocabulary = weight!.shape[0]!;
  const logits = linearRows(x!, weight!, undefined, [{ start: 0, count: vocabulary }]).data;
  const data = new Float64Array(targets!.data.length);
  for (const [t, target] of targets!.data.entries()) {
    if (target < 0) continue;
    const row = logits.subarray(t * vocabulary, (t + 1) * vocabulary);
    const largest = row.reduce((a, b) => Math.max(a, b), -Infinity);
    data[t] = largest + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0)) - row[target]!;
  }
  return { loss: { shape: [...targets!.shape, 1], data } };
};
