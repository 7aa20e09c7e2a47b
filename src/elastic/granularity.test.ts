/** Which widths exist, for every model width. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkDims, dimsOfLevel, resolveWidths, widthStep } from './granularity.ts';

const modelWidths = fc.integer({ min: 1, max: 64 }).map((n) => 32 * n);
const isWidth = (dims: number, dModel: number): boolean =>
  Number.isInteger(dims) && dims >= 1 && dims <= dModel && (2 * dims) % (dModel / 32) === 0;

function refused(call: () => unknown): { code: string; hint: string } | undefined {
  try {
    call();
    return undefined;
  } catch (error) {
    return error as { code: string; hint: string };
  }
}

describe('widths', () => {
  test('dims are whole heads and whole channels, from one head to D; hints name real neighbours', () => {
    fc.assert(
      fc.property(modelWidths, fc.oneof(fc.integer({ min: -5, max: 2100 }), fc.double()), (dModel, dims) => {
        const error = refused(() => checkDims(dims, dModel, 'layers.0'));
        expect(error === undefined).toBe(isWidth(dims, dModel));
        if (!error) return;
        expect(error.code).toBe('WIDTH');
        const near = /nearest are (.*)/.exec(error.hint)![1]!.split(' or ').map(Number);
        for (const one of near) expect(isWidth(one, dModel), `${one} of ${dModel}`).toBe(true);
        if (dims > 0 && dims < dModel) {
          for (let k = 1; k < Math.min(...near.map((one) => Math.abs(one - dims))); k++) {
            expect(isWidth(Math.floor(dims) - k + 1, dModel) && Math.floor(dims) - k + 1 > dims).toBe(false);
          }
        }
      }),
      { seed: 1, numRuns: 500 },
    );
    expect(widthStep(768)).toBe(12);
    expect(widthStep(96)).toBe(3);
    expect(widthStep(32)).toBe(1);
  });

  test('levels divide D into widths; the hint lists all that do', () => {
    fc.assert(
      fc.property(modelWidths, fc.integer({ min: -2, max: 130 }), (dModel, level) => {
        const exists = level >= 1 && isWidth(dModel / level, dModel);
        const error = refused(() => dimsOfLevel(level, dModel));
        expect(error === undefined).toBe(exists);
        if (!error) {
          expect(dimsOfLevel(level, dModel)).toBe(dModel / level);
          return;
        }
        const listed = error.hint.split(': ')[1]!.split(', ').map(Number);
        const all = Array.from({ length: 64 }, (_, i) => i + 1).filter((n) => isWidth(dModel / n, dModel));
        expect(listed).toEqual(all);
      }),
      { seed: 1, numRuns: 500 },
    );
  });

  test('one number counts for every layer; errors name the layer', () => {
    const layers = Array.from({ length: 3 }, () => ({ mixnmatch: false, mixnmatchDims: 64 }));
    const path = (i: number): string => `layers.${i}.mixer`;
    expect(resolveWidths({ mixnmatchDims: 8 }, layers, 64, path)).toEqual([8, 8, 8]);
    expect(resolveWidths({ mixnmatchDims: Int32Array.of(8, 16, 64) as unknown as number[] }, layers, 64, path)).toEqual([
      8, 16, 64,
    ]);
    expect(resolveWidths({}, [{ mixnmatch: true, mixnmatchDims: 5 }, ...layers.slice(1)], 64, path)).toEqual([5, 64, 64]);
    expect(() => resolveWidths({ mixnmatchDims: [8, 8, 65] }, layers, 64, path)).toThrow(/layers\.2\.mixer/);
    expect(() => resolveWidths({ mixnmatchDims: [8, 8] }, layers, 64, path)).toThrow(/2 widths for 3 layers/);
  });
});
