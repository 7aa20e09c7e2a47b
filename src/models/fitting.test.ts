/** Which widths an error names when a program is too large. */

import { expect, test } from 'vitest';
import { MatMambaError } from '../errors.ts';
import { withFittingWidths } from './fitting.ts';

const tooLarge = new MatMambaError('MEMORY', 'activations: too many', { hint: 'use less' });
const elastic = (dims: readonly number[]) => ({ dModel: 384, dims, trace: () => {} });
/** Fits while the widths add up to no more. */
const upTo = (most: number) => (dims: readonly number[]) => dims.reduce((a, b) => a + b, 0) <= most;
const hintOf = (error: unknown): string | undefined => (error as MatMambaError).hint;

test('the widest granularity that fits is named, with its level where there is one', () => {
  const error = withFittingWidths(tooLarge, elastic([384, 384]), upTo(500));
  expect(error).toMatchObject({ code: 'MEMORY', text: 'activations: too many', cause: tooLarge });
  // Layers of 384 have widths in steps of 6: 246 + 246 fits, 252 + 252 does not.
  expect(hintOf(error)).toBe('mixnmatchDims: 246 (mrlLevel: 2) would fit; so may a smaller batch or a shorter input');
  expect(hintOf(withFittingWidths(tooLarge, elastic([384, 384]), upTo(13)))).toMatch(/^mixnmatchDims: 6 would fit/);
});

test('narrow layers stay as they are, and nothing as wide as what failed is tried', () => {
  const tried: number[][] = [];
  const fits = (dims: readonly number[]): boolean => {
    tried.push([...dims]);
    return upTo(120)(dims);
  };
  expect(hintOf(withFittingWidths(tooLarge, elastic([96, 48, 12]), fits))).toMatch(/^mixnmatchDims: 60 \(mrlLevel: 8\)/);
  for (const [first, , last] of tried) {
    expect(first).toBeLessThan(96);
    expect(last).toBe(12);
  }
});

test('where none fits, another way is named; other errors stay', () => {
  expect(hintOf(withFittingWidths(tooLarge, elastic([384]), () => false))).toMatch(/^no granularity makes it small enough/);
  const other = new MatMambaError('DEVICE', 'gone');
  expect(withFittingWidths(other, elastic([384]), () => true)).toBe(other);
});
