import { describe, expect, it } from 'vitest';
import { learningRateSchedule } from './schedule.ts';

describe('learningRateSchedule', () => {
  it('multiplies warm-up and cosine over the whole run', () => {
    const rate = learningRateSchedule({ peak: 3e-3, warmupSteps: 150, totalSteps: 1388, cosineFrom: 'start' });
    const cosine = (step: number): number => 0.5 * (1 + Math.cos((Math.PI * step) / 1388));
    expect(rate(0)).toBeCloseTo(3e-3 / 150, 12);
    expect(rate(74)).toBeCloseTo(3e-3 * 0.5 * cosine(74), 12);
    expect(rate(149)).toBeCloseTo(3e-3 * cosine(149), 12);
    expect(rate(150)).toBeCloseTo(3e-3 * cosine(150), 12);
    expect(rate(694)).toBeCloseTo(1.5e-3, 12);
    expect(rate(1387)).toBeCloseTo(3e-3 * cosine(1387), 12);
    expect(rate(1388)).toBeCloseTo(0, 15);
    expect(rate(5000)).toBeCloseTo(0, 15);
  });

  it('lets the cosine follow the warm-up', () => {
    const rate = learningRateSchedule({ peak: 6e-4, warmupSteps: 700, totalSteps: 30_000 });
    expect(rate(0)).toBeCloseTo(6e-4 / 700, 15);
    expect(rate(698)).toBeCloseTo((6e-4 * 699) / 700, 15);
    expect(rate(699)).toBe(6e-4);
    expect(rate(700)).toBe(6e-4);
    expect(rate(700 + 29_300 / 2)).toBeCloseTo(3e-4, 12);
    expect(rate(29_999)).toBeGreaterThan(0);
    expect(rate(29_999)).toBeLessThan(1e-11);
    expect(rate(30_000)).toBe(0);
  });

  it('ends at the floor and stays there', () => {
    const rate = learningRateSchedule({ peak: 5e-3, warmupSteps: 10_000, totalSteps: 124_800, floor: 2e-4 });
    expect(rate(9999)).toBe(5e-3);
    expect(rate(124_800)).toBeCloseTo(1e-6, 15);
    expect(rate(200_000)).toBeCloseTo(1e-6, 15);
    for (let step = 10_000; step < 124_800; step += 97) expect(rate(step + 1)).toBeLessThan(rate(step));
  });

  it('takes runs without warm-up, all warm-up, and of one step', () => {
    expect(learningRateSchedule({ peak: 1, warmupSteps: 0, totalSteps: 10 })(0)).toBe(1);
    expect(learningRateSchedule({ peak: 1, warmupSteps: 10, totalSteps: 10 })(9)).toBe(1);
    expect(learningRateSchedule({ peak: 1, warmupSteps: 100, totalSteps: 10 })(9)).toBeCloseTo(0.1, 12);
    expect(learningRateSchedule({ peak: 1, warmupSteps: 0, totalSteps: 1, cosineFrom: 'start' })(0)).toBe(1);
    expect(learningRateSchedule({ peak: 1, warmupSteps: 0, totalSteps: 10, floor: 1 })(7)).toBe(1);
  });

  it.each([{ peak: -1 }, { peak: NaN }, { totalSteps: 0 }, { totalSteps: 1.5 }, { warmupSteps: -1 }, { floor: 2 }, { flor: 0 }])(
    'refuses %j',
    (wrong) => {
      expect(() => learningRateSchedule({ peak: 1, warmupSteps: 1, totalSteps: 10, ...wrong })).toThrow(
        expect.objectContaining({ code: 'OPTION' }),
      );
    },
  );
});
