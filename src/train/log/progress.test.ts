import { describe, expect, it } from 'vitest';
import { formatAmount, formatDuration, formatProgress } from './progress.ts';
import { RateMeter } from './rate-meter.ts';

describe('formatProgress', () => {
  const report = {
    step: 120,
    totalSteps: 1388,
    losses: { 'level 1': 4.2131, 'level 8': 4.7, mix: 12_345.6 },
    learningRate: 0.0024,
    gradientNorm: 0.8149,
    perSecond: 12_345,
    secondsLeft: 7512,
  };

  it('puts everything on one line', () => {
    expect(formatProgress(report)).toBe(
      'step  120/1388   loss L1 4.213  L8 4.700  mix 1.2e+4   lr 2.4e-3   norm 0.81   12.3k tokens/s   2 h 05 min left',
    );
  });

  it('leaves out what is not known, and shows what is not finite', () => {
    const line = formatProgress({
      ...report,
      losses: { 'level 1': NaN },
      learningRate: 0,
      unit: 'images',
      secondsLeft: undefined,
    });
    expect(line).toBe('step  120/1388   loss L1 NaN   lr 0   norm 0.81   12.3k images/s');
  });
});

it.each([
  [0, '0'],
  [7, '7'],
  [3.24, '3.2'],
  [99.96, '100'],
  [999.6, '1.00k'],
  [12_345, '12.3k'],
  [999_600, '1.00M'],
  [4_321_000, '4.32M'],
  [2e9, '2.00G'],
  [NaN, '?'],
])('formatAmount(%d) is %s', (value, text) => {
  expect(formatAmount(value)).toBe(text);
});

it.each([
  [0.2, '0 s'],
  [59.4, '59 s'],
  [59.6, '1 min 00 s'],
  [3599.7, '1 h 00 min'],
  [7512, '2 h 05 min'],
  [273_600, '3 d 4 h'],
  [Infinity, '?'],
])('formatDuration(%d) is %s', (seconds, text) => {
  expect(formatDuration(seconds)).toBe(text);
});

describe('RateMeter', () => {
  it('averages over the recent past, and forgets a slow start', () => {
    let now = 0;
    const meter = new RateMeter({ windowSeconds: 10, clock: () => now });
    expect(meter.perSecond).toBe(0);
    expect(meter.secondsFor(5)).toBeUndefined();
    now = 100_000;
    meter.add(1000);
    expect(meter.perSecond).toBe(10);
    for (let i = 0; i < 10; i++) {
      now += 2000;
      meter.add(1000);
    }
    expect(meter.perSecond).toBe(500);
    expect(meter.secondsFor(2000)).toBe(4);
  });

  it('does not count the time of other work', () => {
    let now = 0;
    const meter = new RateMeter({ clock: () => now });
    now = 1000;
    meter.add(100);
    now = 61_000;
    meter.skip();
    now = 62_000;
    meter.add(100);
    expect(meter.perSecond).toBe(100);
  });

  it('keeps a few marks when each is longer than the window', () => {
    let now = 0;
    const meter = new RateMeter({ windowSeconds: 1, clock: () => now });
    for (const seconds of [100, 10, 20, 30]) {
      now += seconds * 1000;
      meter.add(60);
    }
    expect(meter.perSecond).toBe(3);
  });
});
