import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Random } from '../tensor/random.ts';
import { Sampler, type SamplerOptions } from './sampler.ts';

/** The kept probabilities by the plain definition: sort everything, filter step by step. */
function distribution(logits: readonly number[], options: SamplerOptions, history: readonly number[] = []): number[] {
  const { temperature = 1, topK = 0, topP = 1, minP = 0, repetitionPenalty: r = 1 } = options;
  const scores = logits.map((x, id) => (history.includes(id) ? (x < 0 ? x * r : x / r) : x) / temperature);
  let kept = scores.map((_, id) => id).sort((a, b) => scores[b]! - scores[a]! || a - b);
  if (topK > 0 && topK < kept.length) {
    const least = scores[kept[topK - 1]!]!;
    kept = kept.filter((id) => scores[id]! >= least);
  }
  const softmax = (): number[] => {
    const weights = kept.map((id) => Math.exp(scores[id]! - scores[kept[0]!]!));
    const total = weights.reduce((sum, w) => sum + w, 0);
    return weights.map((w) => w / total);
  };
  let mass = 0;
  kept = topP < 1 ? kept.slice(0, softmax().findIndex((p) => (mass += p) >= topP) + 1 || kept.length) : kept;
  const probabilities = softmax();
  kept = kept.filter((_, i) => probabilities[i]! >= minP * probabilities[0]!);
  const final = softmax();
  return scores.map((_, id) => (kept.includes(id) ? final[kept.indexOf(id)]! : 0));
}

/** Draws many times; returns Pearson's chi-square over the kept tokens, and counts of what should never come. */
function chiSquare(sampler: Sampler, logits: Float32Array, expected: readonly number[], draws: number, history: number[] = []) {
  const counts = Array.from(logits, () => 0);
  for (let i = 0; i < draws; i++) counts[sampler.sample(logits, history)]!++;
  let chi = 0;
  let wrong = 0;
  expected.forEach((p, id) => {
    if (p === 0) wrong += counts[id]!;
    else chi += (counts[id]! - p * draws) ** 2 / (p * draws);
  });
  return { chi, wrong, kept: expected.filter((p) => p > 0).length };
}

const LOGITS = [2, 1.5, 1, -0.5, 0.25, 1.5, -1, 0];

describe('Sampler', () => {
  const cases: [SamplerOptions, number[]?][] = [
    [{}],
    [{ temperature: 0.7 }],
    [{ temperature: 2 }],
    [{ topK: 2 }],
    [{ topK: 3 }],
    [{ topK: 100 }],
    [{ topP: 0.5 }],
    [{ topP: 0.9 }],
    [{ minP: 0.3 }],
    [{ minP: 1 }],
    [{ temperature: 1.3, topK: 6, topP: 0.8 }],
    [{ temperature: 0.8, topK: 5, topP: 0.95, minP: 0.2 }],
    [{ repetitionPenalty: 1.5 }, [0, 6, 6, 0, 3]],
    [{ temperature: 0.9, topK: 4, topP: 0.9, minP: 0.1, repetitionPenalty: 2 }, [0, 1, 3]],
  ];
  it.each(cases)('draws by the right distribution: %j %j', (options, history = []) => {
    const expected = distribution(LOGITS, options, history);
    const { chi, wrong, kept } = chiSquare(
      new Sampler({ ...options, seed: 11 }),
      Float32Array.from(LOGITS),
      expected,
      20_000,
      history,
    );
    expect(wrong).toBe(0);
    // The 0.999 quantile of chi-square with 7 degrees of freedom is 24.3; the seed is fixed.
    expect(chi).toBeLessThan(kept > 1 ? 25 : 1e-9);
  });

  it('keeps exactly the tokens that the plain definition keeps', () => {
    const options = fc.record({
      temperature: fc.constantFrom(0.5, 1, 3),
      topK: fc.constantFrom(0, 1, 3, 10, 1000),
      topP: fc.constantFrom(0.1, 0.45, 0.9, 1),
      minP: fc.constantFrom(0, 0.05, 0.5),
    });
    fc.assert(
      fc.property(
        options,
        fc.array(fc.integer({ min: -40, max: 40 }), { minLength: 1, maxLength: 30 }),
        fc.nat(),
        (given, list, seed) => {
          // An irrational step keeps sums of probabilities away from the limits, where rounding would decide.
          const logits = list.map((n, i) => Math.fround(n * 0.1234567 + i * 1e-3));
          const expected = distribution(logits, given);
          const sampler = new Sampler({ ...given, seed });
          for (let i = 0; i < 20; i++) expect(expected[sampler.sample(Float32Array.from(logits))]).toBeGreaterThan(0);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('draws from a large vocabulary as from a small one', () => {
    const random = new Random(3, 'logits');
    const logits = Float32Array.from({ length: 1500 }, () => random.normal() * 2);
    for (const options of [{ topK: 50, topP: 0.9 }, { topP: 0.3 }, { topK: 1200, topP: 0.2 }] satisfies SamplerOptions[]) {
      const expected = distribution([...logits], options);
      const { chi, wrong, kept } = chiSquare(new Sampler({ ...options, seed: 5 }), logits, expected, 5_000);
      expect(wrong).toBe(0);
      expect(chi).toBeLessThan(kept + 4 * Math.sqrt(2 * kept) + 10);
    }
  });

  it('is greedy at temperature 0, with the lowest id of equals', () => {
    const greedy = new Sampler({ temperature: 0 });
    expect(greedy.sample(Float32Array.of(1, 3, 3, 2))).toBe(1);
    expect(greedy.sample(Float32Array.of(-Infinity, -2))).toBe(1);
    expect(new Sampler({ temperature: 0, repetitionPenalty: 2 }).sample(Float32Array.of(1, 3, 2), [1, 99, 1])).toBe(2);
    expect(new Sampler({ temperature: 0 }, 2).sample(Float32Array.of(1, 2, 9))).toBe(1);
    expect(new Sampler({ temperature: 1e-320, seed: 1 }).sample(Float32Array.of(1, 3, 2.99))).toBe(1);
  });

  it('never draws ids past the vocabulary', () => {
    const logits = Float32Array.of(0, 0, 9, 9);
    for (const options of [{}, { topK: 2 }, { topP: 0.9 }, { minP: 0.1 }]) {
      const sampler = new Sampler({ ...options, seed: 0 }, 2);
      for (let i = 0; i < 50; i++) expect(sampler.sample(logits)).toBeLessThan(2);
    }
  });

  it('takes the only token that is possible', () => {
    const logits = new Float32Array(20).fill(-Infinity);
    logits[7] = -3;
    for (const options of [
      {},
      { temperature: 0 },
      { topK: 1 },
      { topK: 5, topP: 0.5 },
      { topP: 0.5 },
      { topP: 1, minP: 1 },
      { repetitionPenalty: 3 },
    ]) {
      expect(new Sampler({ ...options, seed: 2 }).sample(logits, [7])).toBe(7);
    }
  });

  it('leaves the logits as they are', () => {
    const logits = Float32Array.from(LOGITS);
    const sampler = new Sampler({ topK: 3, topP: 0.8, minP: 0.1, repetitionPenalty: 2 });
    sampler.sample(logits, [0, 1]);
    sampler.sample(logits, [2]);
    expect([...logits]).toEqual(LOGITS);
  });

  it('repeats under a seed and differs under another', () => {
    const run = (seed: number): number[] => {
      const sampler = new Sampler({ seed });
      return Array.from({ length: 50 }, () => sampler.sample(Float32Array.from(LOGITS)));
    };
    expect(run(1)).toEqual(run(1));
    expect(run(1)).not.toEqual(run(2));
    expect(run(2 ** 40 + 1)).not.toEqual(run(1));
    const chosen = new Sampler();
    expect(new Sampler({ seed: chosen.seed }).sample(Float32Array.from(LOGITS))).toBe(chosen.sample(Float32Array.from(LOGITS)));
  });

  it('refuses logits that are not finite', () => {
    for (const temperature of [0, 1]) {
      const sampler = new Sampler({ temperature });
      expect(() => sampler.sample(Float32Array.of(1, NaN, 2))).toThrow(
        expect.objectContaining({ code: 'WEIGHTS', message: expect.stringContaining('token 1 is NaN') as string }),
      );
      expect(() => sampler.sample(Float32Array.of(NaN))).toThrow(expect.objectContaining({ code: 'WEIGHTS' }));
      expect(() => sampler.sample(Float32Array.of(1, Infinity))).toThrow(expect.objectContaining({ code: 'WEIGHTS' }));
      expect(() => sampler.sample(Float32Array.of(-Infinity))).toThrow(expect.objectContaining({ code: 'WEIGHTS' }));
    }
  });

  it('refuses options out of range, with the range', () => {
    const wrong: SamplerOptions[] = [
      { temperature: -1 },
      { temperature: NaN },
      { temperature: Infinity },
      { topK: -1 },
      { topK: 1.5 },
      { topP: 0 },
      { topP: 1.1 },
      { minP: -0.1 },
      { minP: 2 },
      { repetitionPenalty: 0 },
      { seed: -1 },
      { seed: 0.5 },
    ];
    for (const options of wrong) {
      expect(() => new Sampler(options)).toThrow(
        expect.objectContaining({ code: 'OPTION', hint: expect.stringContaining(Object.keys(options)[0]!) as string }),
      );
    }
    expect(() => new Sampler({ topk: 3 } as SamplerOptions)).toThrow(expect.objectContaining({ hint: "did you mean 'topK'?" }));
    expect(() => new Sampler({ topK: undefined, topP: undefined })).not.toThrow();
  });
});
