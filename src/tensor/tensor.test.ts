/** Host tensors, conversions between element types over all 16-bit patterns, and the random numbers' known answers. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  DTYPES,
  Random,
  Tensor,
  bf16ToFloat,
  bytesOf,
  f16ToFloat,
  floatToBf16,
  floatToF16,
  fromFloat32,
  philox,
  tensor,
  tensorFromBytes,
  toFloat32,
  viewAs,
} from './index.ts';

const code = (name: string): Error => expect.objectContaining({ name: 'MatMambaError', code: name }) as Error;

describe('tensor', () => {
  test('shape and dtype come from the array or are named', async () => {
    const t = tensor(new Float32Array(6), [2, 3]);
    expect([t.shape, t.dtype, t.size]).toEqual([[2, 3], 'f32', 6]);
    expect(await t.data()).toBe(t.array);
    expect(tensor([1, 2, 3]).shape).toEqual([3]);
    expect(tensor(new Uint16Array(2), [2], 'bf16').dtype).toBe('bf16');
    expect(tensor(BigInt64Array.of(5n)).toFloat32()).toEqual(Float32Array.of(5));
    expect(Object.isFrozen(t.shape)).toBe(true);
    expect(tensor(new Float32Array(0), [0, 4]).size).toBe(0);
    expect(tensor(Float32Array.of(3), []).size).toBe(1);
  });

  test('what does not fit is refused', () => {
    expect(() => tensor(new Float32Array(5), [2, 3])).toThrow(code('SHAPE'));
    expect(() => tensor(new Float32Array(6), [2, -3])).toThrow(code('SHAPE'));
    expect(() => tensor(new Float32Array(6), [2, 3.5])).toThrow(code('SHAPE'));
    expect(() => tensor(new Float32Array(6), [6], 'bf16')).toThrow(code('SHAPE'));
    expect(() => new Tensor(() => new Float32Array(2), [3], 'f32').array).toThrow(code('SHAPE'));
  });

  test('dispose lets go of the elements; `using` does it', () => {
    const t = tensor(new Float32Array(2));
    {
      using mine = t;
      expect(mine.array).toHaveLength(2);
    }
    expect(() => t.array).toThrow(code('DISPOSED'));
    expect(() => t.toFloat32()).toThrow(code('DISPOSED'));
    t.dispose();
  });

  test('lazy elements are fetched once', () => {
    let fetched = 0;
    const t = new Tensor(() => (fetched++, new Float32Array(2)), [2], 'f32');
    expect([t.array, t.array, t.bytes.length]).toEqual([new Float32Array(2), new Float32Array(2), 8]);
    expect(fetched).toBe(1);
  });

  test('bytes that are not aligned are copied', () => {
    const bytes = new Uint8Array([0, 0, 0, 128, 63]).subarray(1);
    expect(tensorFromBytes(bytes, [1], 'f32').array[0]).toBe(1);
    for (const dtype of DTYPES) expect(viewAs(dtype, new Uint8Array(9).subarray(1)).length, dtype).toBe(8 / bytesOf(dtype));
  });
});

describe('conversion', () => {
  test('every half and every bfloat16 survives the way through float32', () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    for (const [dtype, to, from] of [
      ['f16', f16ToFloat, floatToF16],
      ['bf16', bf16ToFloat, floatToBf16],
    ] as const) {
      const floats = new Float32Array(65536);
      toFloat32(dtype, bits, floats);
      const back = fromFloat32(dtype, floats);
      for (let i = 0; i < 65536; i++) {
        if (Number.isNaN(floats[i]!)) {
          expect(Number.isNaN(to(i)) && Number.isNaN(to(back[i]!))).toBe(true);
          continue;
        }
        if (back[i] !== i || !Object.is(to(i), floats[i]) || from(floats[i]!) !== i)
          throw new Error(`${dtype} ${i}: ${floats[i]} became ${back[i]}`);
      }
    }
  });

  test('rounds to the nearest, ties to even', () => {
    const nearest = (x: number, decode: (bits: number) => number, bits: number, largest: number): void => {
      const [got, magnitude] = [decode(bits), bits & 0x7fff];
      const sign = bits & 0x8000;
      if (!Number.isFinite(got)) {
        expect(Math.abs(x)).toBeGreaterThan(largest);
        return;
      }
      const error = Math.abs(got - x);
      for (const other of [magnitude - 1, magnitude + 1]) {
        const value = other < 0 ? Infinity : decode(sign | other);
        if (!Number.isFinite(value)) continue;
        expect(error).toBeLessThanOrEqual(Math.abs(value - x));
        if (error === Math.abs(value - x) && error > 0) expect(magnitude & 1).toBe(0);
      }
    };
    fc.assert(
      fc.property(
        fc.oneof(
          fc.float({ noNaN: true, noDefaultInfinity: true }),
          fc.float({ min: -70000, max: 70000, noNaN: true }),
          fc.float({ min: Math.fround(-1e-4), max: Math.fround(1e-4), noNaN: true }),
        ),
        (x) => {
          nearest(x, f16ToFloat, floatToF16(x), 65504);
          nearest(x, bf16ToFloat, floatToBf16(x), 3.389e38);
          expect(fromFloat32('bf16', Float32Array.of(x))[0]).toBe(floatToBf16(x));
          expect(fromFloat32('f16', Float32Array.of(x))[0]).toBe(floatToF16(x));
        },
      ),
      { seed: 1, numRuns: 2000 },
    );
    expect(f16ToFloat(floatToF16(65520))).toBe(Infinity);
    expect(f16ToFloat(floatToF16(65519))).toBe(65504);
    expect(floatToBf16(NaN) & 0x7fff).toBeGreaterThan(0x7f80);
  });
});

describe('random numbers', () => {
  test('Philox 4x32-10 gives the published answers', () => {
    const out = new Uint32Array(4);
    const f = 0xffffffff;
    const answers: [[number, number, number, number], [number, number], number[]][] = [
      [
        [0, 0, 0, 0],
        [0, 0],
        [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
      ],
      [
        [f, f, f, f],
        [f, f],
        [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
      ],
      [
        [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
        [0xa4093822, 0x299f31d0],
        [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
      ],
    ];
    for (const [counter, key, expected] of answers) {
      philox(...counter, ...key, out);
      expect([...out]).toEqual(expected);
    }
  });

  test('streams differ by seed and name, repeat otherwise, and are what they say', () => {
    const draw = (seed: number, name: string): number[] => {
      const random = new Random(seed, name);
      return Array.from({ length: 4 }, () => random.uint32());
    };
    expect(draw(1, 'a')).toEqual(draw(1, 'a'));
    for (const other of [draw(2, 'a'), draw(1, 'b'), draw(2 ** 32 + 1, 'a')]) expect(other).not.toEqual(draw(1, 'a'));
    const random = new Random(7);
    const n = 100_000;
    let [sum, squares, least, most] = [0, 0, 1, 0];
    for (let i = 0; i < n; i++) {
      const u = random.uniform();
      [least, most] = [Math.min(least, u), Math.max(most, u)];
      const z = random.normal();
      sum += z;
      squares += z * z;
    }
    expect(least).toBeGreaterThanOrEqual(0);
    expect(most).toBeLessThan(1);
    expect(Math.abs(sum / n)).toBeLessThan(0.015);
    expect(Math.abs(squares / n - 1)).toBeLessThan(0.03);
  });
});
