/** The linear map by subgroup matrices, where the adapter has them: large and small numbers, segments, a bias. */

import { afterAll, describe, expect, test } from 'vitest';
import { runCase } from '../../../test/support/run-case.ts';
import { openTestWebGpu } from '../../../test/support/webgpu-device.ts';

const { backend, reason } = await openTestWebGpu();
const has = backend?.device.facts.matrix !== undefined;
afterAll(() => backend?.dispose());

const why = backend ? 'this adapter has none' : reason;
const WIDTH = 56;
const ROWS = 70;

describe.skipIf(!has)(has ? 'products by subgroup matrices' : `products by subgroup matrices: ${why}`, () => {
  test('are as exact as float32', async () => {
    const segments = [
      { start: 3, count: 37 },
      { start: 50, count: 66 },
    ];
    for (const scale of [1, 1e-4, 300]) {
      const operands = {
        x: { shape: [ROWS, WIDTH], fill: { kind: 'normal', scale } },
        weight: { shape: [120, 64] },
        bias: { shape: [120] },
      } as const;
      const { errors } = await runCase(
        backend!,
        'linear',
        { name: `scale ${scale}`, operands, attributes: { segments }, tolerance: 2e-6 },
        'f16',
      );
      for (const { relative } of Object.values(errors)) expect(relative).toBeLessThan(2e-6);
    }
  }, 120_000);
});
