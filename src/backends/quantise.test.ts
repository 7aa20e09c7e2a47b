import { describe, expect, test } from 'vitest';
import { checkGroupSize, checkScales, quantise } from './quantise.ts';

describe('int8 groups', () => {
  test('come in whole vectors', () => {
    expect(() => checkGroupSize(32)).not.toThrow();
    for (const bad of [0, 8, 100]) {
      expect(() => checkGroupSize(bad)).toThrow(expect.objectContaining({ code: 'OPTION' }));
    }
  });

  test('have a scale each', () => {
    expect(() => checkScales('w', new Float32Array(6), 2, 3)).not.toThrow();
    expect(() => checkScales('w', new Float32Array(5), 2, 3)).toThrow(/w: scales expected \(2, 3\), got 5/);
  });

  test('are within half a step; what is not finite becomes NaN', () => {
    const values = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i) * (i < 32 ? 1 : 100));
    const { quantised, scales } = quantise(values, 32, 16, 2);
    for (const [i, value] of values.entries()) {
      const scale = scales[Math.floor(i / 16)]!;
      expect(Math.abs(quantised[i]! * scale - value)).toBeLessThanOrEqual(scale / 2 + 1e-6);
    }
    expect(quantise(Float32Array.of(1, Infinity), 2, 16, 1).scales[0]).toBeNaN();
  });
});
