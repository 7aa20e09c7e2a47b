import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkDims } from '../elastic/granularity.ts';
import { type StepPart, type StrategyOptions, createStrategy } from './strategy.ts';

const MODEL = { dModel: 384, nLayer: 8 };
const labels = (parts: readonly StepPart[]): string[] => parts.map(({ label }) => label);

describe('joint', () => {
  it('trains every level in every step, each on batches of its own', () => {
    const { parts, microBatches } = createStrategy({ strategy: 'joint', ...MODEL });
    expect(microBatches).toBe(4);
    for (const step of [0, 1, 99_999]) {
      expect(parts(step)).toEqual(
        [1, 2, 4, 8].map((level, index) => ({
          label: `level ${level}`,
          widths: Array.from({ length: 8 }, () => 384 / level),
          weight: 0.25,
          index,
          distill: false,
        })),
      );
    }
  });

  it('accumulates and weighs', () => {
    const strategy = createStrategy({
      strategy: 'joint',
      ...MODEL,
      levels: [1, 4],
      weights: [3, 1],
      microBatches: 2,
      distill: true,
    });
    const parts = strategy.parts(5);
    expect(labels(parts)).toEqual(['level 1', 'level 1', 'level 4', 'level 4']);
    expect(parts.map(({ weight }) => weight)).toEqual([0.375, 0.375, 0.125, 0.125]);
    expect(parts.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(parts.map(({ distill }) => distill)).toEqual([false, false, true, true]);
    expect(strategy.labels).toEqual(['level 1', 'level 4']);
  });

  it('adds mixes: new ones in every step, one draw for all micro-batches of a mix', () => {
    const { parts, labels: all } = createStrategy({ strategy: 'joint', ...MODEL, mixes: 2, microBatches: 2, mixFrom: 'any' });
    expect(all).toEqual(['level 1', 'level 2', 'level 4', 'level 8', 'mix']);
    const mixes = parts(3).filter(({ label }) => label === 'mix');
    expect(mixes).toHaveLength(4);
    expect(mixes[0]?.widths).toEqual(mixes[1]?.widths);
    expect(mixes[2]?.widths).toEqual(mixes[3]?.widths);
    expect(mixes[0]?.widths).not.toEqual(mixes[2]?.widths);
    expect(mixes[0]?.widths).not.toEqual(parts(4).find(({ label }) => label === 'mix')?.widths);
  });
});

describe('sample', () => {
  it('takes levels in turn, through steps of any length', () => {
    const four = createStrategy({ strategy: 'sample', ...MODEL });
    expect(labels(four.parts(0))).toEqual(['level 1', 'level 2', 'level 4', 'level 8']);
    expect(labels(four.parts(7))).toEqual(labels(four.parts(0)));
    const three = createStrategy({ strategy: 'sample', ...MODEL, microBatches: 3 });
    expect([0, 1, 2, 3].flatMap((step) => labels(three.parts(step)))).toEqual(
      Array.from({ length: 12 }, (_, i) => `level ${2 ** (i % 4)}`),
    );
  });

  it('draws levels by their weights', () => {
    const { parts } = createStrategy({
      strategy: 'sample',
      order: 'random',
      ...MODEL,
      weights: [4, 3, 2, 1],
      mixes: 1,
      mixWeight: 2,
      seed: 3,
    });
    const counts = new Map<string, number>();
    const steps = 4000;
    for (let step = 0; step < steps; step++) {
      for (const { label } of parts(step)) counts.set(label, (counts.get(label) ?? 0) + 1);
    }
    expect(parts(9).map(({ weight }) => weight)).toEqual([0.2, 0.2, 0.2, 0.2, 0.2]);
    const expected = { 'level 1': 4, 'level 2': 3, 'level 4': 2, 'level 8': 1, mix: 2 };
    for (const [label, weight] of Object.entries(expected)) {
      const share = weight / 12;
      // Five standard deviations.
      expect(Math.abs(counts.get(label)! / (steps * 5) - share)).toBeLessThan(5 * Math.sqrt((share * (1 - share)) / (steps * 5)));
    }
  });
});

describe('mixes', () => {
  it('cover every width of every layer evenly, and only valid ones', () => {
    const { parts } = createStrategy({ strategy: 'joint', dModel: 96, nLayer: 3, levels: [1], mixes: 1, mixFrom: 'any' });
    const counts = Array.from({ length: 3 }, () => new Map<number, number>());
    const steps = 8000;
    for (let step = 0; step < steps; step++) {
      const widths = parts(step).at(-1)?.widths ?? [];
      for (const [layer, count] of counts.entries()) count.set(widths[layer] ?? 0, (count.get(widths[layer] ?? 0) ?? 0) + 1);
    }
    for (const layer of counts) {
      expect(layer.size).toBe(32);
      for (const [dims, count] of layer) {
        checkDims(dims, 96, 'test');
        expect(Math.abs(count / steps - 1 / 32)).toBeLessThan(5 * Math.sqrt(1 / 32 / steps));
      }
    }
  });

  it('draw from the levels by default, also in models of more than four layers', () => {
    const { parts } = createStrategy({ strategy: 'joint', dModel: 768, nLayer: 9, levels: [1, 2, 8], mixes: 1 });
    const seen = new Set(Array.from({ length: 200 }, (_, step) => parts(step).at(-1)!.widths).flat());
    expect([...seen].sort((a, b) => b - a)).toEqual([768, 384, 96]);
    const last = parts(0).at(-1)!.widths;
    expect(new Set(last.slice(0, 4).map((dims, i) => dims === last[i + 4])).size).toBe(2);
  });

  it('of a pool are so many at most, each as often as another', () => {
    const { parts } = createStrategy({ strategy: 'joint', ...MODEL, mixes: 2, mixPool: 5 });
    const counts = new Map<string, number>();
    for (let step = 0; step < 1000; step++) {
      for (const { label, widths } of parts(step)) {
        if (label === 'mix') counts.set(widths.join(), (counts.get(widths.join()) ?? 0) + 1);
      }
    }
    expect(counts.size).toBe(5);
    // Five standard deviations of 2000 draws.
    for (const count of counts.values()) expect(Math.abs(count - 400)).toBeLessThan(5 * Math.sqrt(2000 * 0.2 * 0.8));
  });
});

it('is a pure function of options, seed and step, with weights that sum up to 1', () => {
  const options = fc.record({
    strategy: fc.constantFrom('joint' as const, 'sample' as const),
    order: fc.constantFrom('cycle' as const, 'random' as const),
    microBatches: fc.integer({ min: 1, max: 7 }),
    mixes: fc.integer({ min: 0, max: 3 }),
    mixFrom: fc.constantFrom('levels' as const, 'any' as const),
    mixPool: fc.integer({ min: 0, max: 3 }),
    weights: fc.array(fc.double({ min: 0.01, max: 9, noNaN: true }), { minLength: 4, maxLength: 4 }),
    distill: fc.boolean(),
    seed: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  });
  fc.assert(
    fc.property(options, fc.integer({ min: 0, max: 10_000_000 }), (given, step) => {
      const strategy = createStrategy({ ...MODEL, ...given });
      const parts = strategy.parts(step);
      strategy.parts(step + 1);
      expect(strategy.parts(step)).toEqual(parts);
      expect(createStrategy({ ...MODEL, ...given }).parts(step)).toEqual(parts);
      expect(parts.map(({ index }) => index)).toEqual(Array.from({ length: strategy.microBatches }, (_, i) => i));
      expect(parts.reduce((sum, { weight }) => sum + weight, 0)).toBeCloseTo(1, 12);
      for (const { label, widths, distill } of parts) {
        expect(strategy.labels).toContain(label);
        expect(widths).toHaveLength(8);
        for (const dims of widths) checkDims(dims, 384, 'test');
        expect(distill).toBe(given.distill && widths.some((dims) => dims < 384));
      }
    }),
  );
});

it.each<[string, Partial<StrategyOptions>, string]>([
  ['no level', { levels: [] }, 'OPTION'],
  ['a level twice', { levels: [1, 1] }, 'OPTION'],
  ['a level that does not divide', { levels: [5] }, 'WIDTH'],
  ['too few weights', { weights: [1] }, 'OPTION'],
  ['a weight of 0', { weights: [1, 1, 1, 0] }, 'OPTION'],
  ['no micro-batch', { microBatches: 0 }, 'OPTION'],
  ['half a mix', { mixes: 0.5 }, 'OPTION'],
  ['an unknown option', { level: [1] } as Partial<StrategyOptions>, 'OPTION'],
])('refuses %s', (_, wrong, code) => {
  expect(() => createStrategy({ strategy: 'joint', ...MODEL, ...wrong })).toThrow(expect.objectContaining({ code }));
});
