/** The suite on a short sequence: figures that fit together. */

import { expect, test } from 'vitest';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import { flopsOfToken, trainSuite } from './train-suite.ts';

test('model FLOPs of a token are 6 for every element of the matrices, and 15 for every element of the states', async () => {
  await using lm = await MatMambaLMHeadModel.create(
    { dModel: 64, nLayer: 3, vocabSize: 40, ssmCfg: { dState: 16 } },
    { threads: 1, blas: 'off' },
  );
  const elements = [...lm.parameters.declared.values()]
    .filter(({ name, shape }) => shape.length === 2 && !name.includes('conv1d'))
    .reduce((sum, { shape: [rows, columns] }) => sum + rows! * columns!, 0);
  expect(flopsOfToken(lm, 1)).toBe(6 * elements + 3 * 15 * 128 * 16);
  // A quarter of the inner channels and heads; B, C and the head as they are.
  expect(flopsOfToken(lm, 4)).toBe(3 * (6 * (64 * (64 + 32 + 16) + 32 * 64) + 15 * 32 * 16) + 6 * 64 * 40);
});

test('a step is measured, profiled and compared with one product', async () => {
  const results = [];
  const suite = trainSuite({
    models: ['books-10m'],
    levels: [4, 8],
    threads: [1],
    blas: ['off'],
    recompute: true,
    lengthTokens: 8,
    repetition: { least: 1, most: 1, budgetMs: 0 },
    signal: new AbortController().signal,
  });
  for await (const result of suite) results.push(result);
  expect(results).toHaveLength(1);
  const [{ tokens, step, modelFlops, modelGflops, gemmGflops, shareOfGemm, shareInProducts, peakMemoryBytes, ops }] = results as [
    (typeof results)[0],
  ];
  expect(tokens.perSecond).toBeCloseTo((2 * 4 * 8 * 1000) / step.medianMs, 3);
  expect(modelGflops.perSecond).toBeCloseTo(modelFlops / 1e6 / step.medianMs, 3);
  expect(shareOfGemm).toBeCloseTo(modelGflops.perSecond / gemmGflops.perSecond, 6);
  expect(shareInProducts).toBeGreaterThan(0.1);
  expect(shareInProducts).toBeLessThan(1);
  expect(peakMemoryBytes).toBeGreaterThan(100e6);
  expect(ops.map(({ op }) => op)).toContain('adamw');
});
