import type { Reference } from '../cases.ts';

export const softCrossEntropyReference: Reference = ({ logits, targets, scale }) => {
  const V = logits!.shape.at(-1)!;
  const rows = logits!.data.length / V;
  const loss = new Float64Array(rows);
  const dLogits = new Float64Array(logits!.data.length);
  for (let row = 0; row < rows; row++) {
    const x = logits!.data.subarray(row * V, (row + 1) * V);
    const t = targets!.data.subarray(row * V, (row + 1) * V);
    const largest = Math.max(...x);
    const total = largest + Math.log(x.reduce((sum, value) => sum + Math.exp(value - largest), 0));
    const mass = t.reduce((sum, value) => sum + value, 0);
    for (let v = 0; v < V; v++) {
      loss[row]! += t[v]! * (total - x[v]!);
      dLogits[row * V + v] = (Math.exp(x[v]! - total) * mass - t[v]!) * scale!.data[row]!;
    }
  }
  return { loss: { shape: [...logits!.shape.slice(0, -1), 1], data: loss }, dLogits: { shape: logits!.shape, data: dLogits } };
};
