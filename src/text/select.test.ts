import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MassScratch, comesBefore, kthLargest, massCut } from './select.ts';

describe('kthLargest', () => {
  it('finds what a sort finds, with ties and infinities, by heap and by partition', () => {
    const value = fc.oneof(fc.float({ noNaN: true }), fc.constantFrom(0, 1, -Infinity));
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 60 }), fc.nat(), (list, pick) => {
        const values = Float32Array.from(list);
        const k = (pick % list.length) + 1;
        const sorted = values.slice().sort((a, b) => b - a);
        expect(kthLargest(values, values.length, k, new Float32Array(values.length))).toBe(sorted[k - 1]);
      }),
    );
    const many = Float32Array.from({ length: 6000 }, (_, i) => (i * 7919) % 2003);
    const sorted = many.slice().sort((a, b) => b - a);
    for (const k of [1, 1024, 1025, 3000, 5999, 6000])
      expect(kthLargest(many, 6000, k, new Float32Array(6000))).toBe(sorted[k - 1]);
    expect(kthLargest(new Float32Array(5000), 5000, 2000, new Float32Array(5000))).toBe(0);
  });
});

describe('massCut', () => {
  it('cuts where a sort cuts', () => {
    // Sixteenths add up without rounding, so that both ways meet the same sums.
    const weight = fc.integer({ min: 0, max: 64 }).map((n) => n / 16);
    const scratch = new MassScratch();
    fc.assert(
      fc.property(
        fc.array(weight, { minLength: 1, maxLength: 50 }),
        fc.constantFrom(0.125, 0.25, 0.5, 0.75, 0.875),
        (list, share) => {
          const total = list.reduce((sum, w) => sum + w, 0);
          fc.pre(total > 0);
          const order = list.map((_, i) => i).sort((a, b) => (comesBefore(list[a]!, a, list[b]!, b) ? -1 : 1));
          let mass = 0;
          const last = order.find((i) => (mass += list[i]!) >= share * total)!;
          expect(massCut(Float64Array.from(list), list.length, total, share, scratch)).toEqual({
            weight: list[last],
            index: last,
          });
        },
      ),
      { numRuns: 500 },
    );
  });
});
