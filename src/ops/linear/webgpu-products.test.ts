/** Products with weights in parts, which only a device with small buffers has: segments that cross them, sums over them. */

import { afterAll, describe, expect, test } from 'vitest';
import { runCase } from '../../../test/support/run-case.ts';
import { openTestWebGpu } from '../../../test/support/webgpu-device.ts';
import type { OpCase } from '../cases.ts';
import type { OpName } from '../index.ts';

/** A third of the matrices below in float32; all activations of a case fit. */
const BUFFER_BYTES = 64 * 1024;
const ROWS = 1000;
const WIDTH = 37;

const { backend, reason } = await openTestWebGpu({ bufferLimitBytes: BUFFER_BYTES });
afterAll(() => backend?.dispose());

const segments = [
  { start: 7, count: 21 },
  { start: 300, count: 90 },
  { start: 640, count: 360 },
];
const x = { shape: [9, WIDTH] };
const dy = { shape: [9, 32 + 96 + 368] };
const matrix = { shape: [ROWS, WIDTH] };
const targets = { shape: [3], dtype: 'i32', fill: { kind: 'values', values: [3, -1, 990] } } as const;
const head = { x: { shape: [3, WIDTH] }, weight: matrix, targets };

const CASES: readonly [OpName, OpCase][] = [
  [
    'linear_input_backward',
    { name: 'parts', operands: { dy, weight: matrix }, attributes: { segments, width: 33 }, tolerance: 2e-6 },
  ],
  ['linear_weight_backward', { name: 'parts', operands: { x, dy, dWeight: matrix }, attributes: { segments }, tolerance: 2e-6 }],
  ['linear_cross_entropy', { name: 'parts', operands: head, tolerance: 2e-6 }],
  [
    'linear_cross_entropy_backward',
    { name: 'parts', operands: { ...head, dLoss: { shape: [3, 1] }, dWeight: matrix }, tolerance: 2e-6 },
  ],
];

describe.skipIf(!backend)(backend ? 'products with weights in parts' : `products with weights in parts: ${reason}`, () => {
  test.each(CASES)('%s', async (opName, testCase) => {
    for (const dtype of ['f32', 'int8'] as const) {
      const { errors } = await runCase(backend!, opName, testCase, dtype);
      for (const { relative } of Object.values(errors)) expect(relative).toBeLessThan(testCase.tolerance);
    }
  });
});
