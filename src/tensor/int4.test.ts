/** Matrices in 4 bits: packing, quantisation and back. */

import { describe, expect, test } from 'vitest';
import { INT4_GROUP, dequantise, int4RowBytes, packInt4, quantiseInt4, unpackInt4 } from './int4.ts';
import { Random } from './random.ts';

function normals(count: number, stream: string): Float32Array {
  const random = new Random(1, stream);
  return Float32Array.from({ length: count }, () => random.normal());
}

/** What quantised rows stand for. */
function back(floats: Float32Array, columns: number, groupSize = INT4_GROUP): Float32Array {
  const { values, scales } = quantiseInt4(floats, columns, groupSize);
  return dequantise(values, scales, columns, groupSize, Math.ceil(columns / groupSize));
}

describe('packing', () => {
  test.each([1, 2, 7, 16, 33])('rows of %i numbers come back', (columns) => {
    const values = Int8Array.from({ length: 5 * columns }, (_, i) => ((i * 7) % 16) - 8);
    const packed = packInt4(values, columns);
    expect(packed).toHaveLength(5 * int4RowBytes(columns));
    expect(unpackInt4(packed, columns)).toEqual(values);
  });

  test('the first number lies in the low half, negative ones in two’s complement', () => {
    expect(packInt4(Int8Array.of(1, -1, -8, 7, 3), 5)).toEqual(Uint8Array.of(0xf1, 0x78, 0x03));
    expect(unpackInt4(Uint8Array.of(0xf1, 0x78, 0x03, 0, 0x21, 0x43, 0x05, 0), 5, 4)).toEqual(
      Int8Array.of(1, -1, -8, 7, 3, 1, 2, 3, 4, 5),
    );
  });
});

describe('quantisation', () => {
  test.each([
    [100, 32],
    [100, 64],
    [64, 64],
    [9, 32],
  ])('rows of %i in groups of %i stay within half a step', (columns, groupSize) => {
    const floats = normals(6 * columns, `${columns}/${groupSize}`);
    const groups = Math.ceil(columns / groupSize);
    const { values, scales } = quantiseInt4(floats, columns, groupSize);
    expect(scales).toHaveLength(6 * groups);
    const restored = dequantise(values, scales, columns, groupSize, groups);
    for (let row = 0; row < 6; row++) {
      for (let group = 0; group < groups; group++) {
        const start = row * columns + group * groupSize;
        const end = Math.min(start + groupSize, (row + 1) * columns);
        const largest = Math.max(...floats.subarray(start, end).map(Math.abs));
        let wrong = 0;
        for (let i = start; i < end; i++) {
          // Scales are a seventh or an eighth of the largest; with an eighth, 8 is held to 7.
          expect(Math.abs(restored[i]! - floats[i]!)).toBeLessThanOrEqual((largest / 8) * 1.0001);
          wrong += (restored[i]! - floats[i]!) ** 2;
        }
        expect(wrong).toBeLessThan((end - start) * (largest / 7 / 2) ** 2);
      }
    }
  });

  test('what was quantised stays what it is', () => {
    const once = back(normals(40 * 128, 'again'), 128);
    const twice = back(once, 128);
    let largest = 0;
    for (const [i, value] of once.entries()) largest = Math.max(largest, Math.abs(twice[i]! - value) / (Math.abs(value) || 1));
    expect(largest).toBeLessThan(3e-7);
  });

  test('the usual error is near 8% of normal numbers', () => {
    const floats = normals(64 * 512, 'error');
    const restored = back(floats, 512);
    const squares = floats.reduce((sum, value) => sum + value * value, 0);
    const wrong = floats.reduce((sum, value, i) => sum + (restored[i]! - value) ** 2, 0);
    expect(Math.sqrt(wrong / squares)).toBeGreaterThan(0.05);
    expect(Math.sqrt(wrong / squares)).toBeLessThan(0.09);
  });

  test('zeros stay zeros, what is not finite shows in its group’s scale alone', () => {
    expect(back(new Float32Array(64), 64)).toEqual(new Float32Array(64));
    for (const bad of [NaN, Infinity]) {
      const floats = new Float32Array(64).fill(1);
      floats[40] = bad;
      const { values, scales } = quantiseInt4(floats, 64);
      expect([...scales]).toEqual([-0.125, NaN]);
      expect([...new Set(values.subarray(0, 32))]).toEqual([-8]);
    }
  });
});
