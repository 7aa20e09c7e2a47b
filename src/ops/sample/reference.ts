/** Float64 sampling by sorting, one row at a time. */

import { philox, streamOf } from '../../tensor/random.ts';
import type { Reference } from '../cases.ts';

interface Token {
  readonly id: number;
  readonly score: number;
  readonly weight: number;
}

/** Uniform in [0, 1) with 53 bits: numbers 2 * draw and 2 * draw + 1 of the row's stream. */
function uniform(seed: number, draw: number, row: number): number {
  const words = new Uint32Array(4);
  philox(draw >>> 1, 0, streamOf('sample'), row, seed, 0, words);
  const [high, low] = draw & 1 ? [words[2]!, words[3]!] : [words[0]!, words[1]!];
  return ((high >>> 5) * 2 ** 26 + (low >>> 6)) * 2 ** -53;
}

const sum = (tokens: readonly Token[]): number => tokens.reduce((mass, { weight }) => mass + weight, 0);

export const sampleReference: Reference = ({ logits, settings, random }) => {
  const [temperature, topK, topP, minP, usable] = settings!.data as unknown as [number, number, number, number, number];
  const columns = logits!.shape.at(-1)!;
  const n = Math.min(columns, usable);
  const rows = logits!.data.length / columns;
  const ids = Float64Array.from({ length: rows }, (_, row) => {
    const scores = logits!.data.subarray(row * columns, row * columns + n);
    const best = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    if (!Number.isFinite(best)) return -1;
    if (temperature === 0) return scores.indexOf(best);
    const tokens: Token[] = Array.from(scores, (score, id) => ({ id, score, weight: Math.exp((score - best) / temperature) }));
    let kept = tokens.toSorted((a, b) => b.weight - a.weight || a.id - b.id);
    if (topK > 0 && topK < n) {
      const least = Float64Array.from(scores).sort()[n - topK]!;
      kept = kept.filter(({ score }) => score >= least);
    }
    if (topP < 1) {
      let left = topP * sum(kept);
      const end = kept.findIndex(({ weight }) => (left -= weight) <= 0);
      if (end >= 0) kept.length = end + 1;
    }
    kept = kept.filter(({ weight }) => weight >= minP).toSorted((a, b) => a.id - b.id);
    let left = uniform(random!.data[0]!, random!.data[1]!, row) * sum(kept);
    return (kept.find(({ weight }) => (left -= weight) < 0) ?? kept.at(-1)!).id;
  });
  return { ids: { shape: logits!.shape.slice(0, -1), data: ids } };
};
