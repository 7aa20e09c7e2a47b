/** The linear map of a few rows with so many columns that a lane computes several of them, in every dtype and without subgroups. */

import { afterAll, describe, expect, test } from 'vitest';
import { runCase } from '../../../test/support/run-case.ts';
import { openTestWebGpu } from '../../../test/support/webgpu-device.ts';
import { WEIGHT_DTYPES } from '../../backends/backend.ts';
import { fewRowsPlan } from './webgpu-few-rows.ts';

const { backend, reason } = await openTestWebGpu();
const { backend: plain } = await openTestWebGpu({ features: [] });
afterAll(() => Promise.all([backend?.dispose(), plain?.dispose()]));

const COLUMNS = 65_550;
const WIDTH = 32;

test('large matrices have lanes compute several columns, small ones have workgroups for a whole GPU', () => {
  expect(fewRowsPlan(1, 50_288, 96, 'f16')).toEqual({ rows: 1, lanes: 32, each: 2, columns: 8 });
  expect(fewRowsPlan(1, 50_288, 48, 'i8')).toEqual({ rows: 1, lanes: 32, each: 4, columns: 16 });
  expect(fewRowsPlan(4, 50_288, 48, 'i8')).toEqual({ rows: 4, lanes: 32, each: 2, columns: 8 });
  expect(fewRowsPlan(1, 656, 96, 'f16')).toEqual({ rows: 1, lanes: 32, each: 1, columns: 4 });
  expect(fewRowsPlan(1, 768, 12, 'i8')).toEqual({ rows: 1, lanes: 8, each: 1, columns: 16 });
});

describe.skipIf(!backend)(backend ? 'many columns' : `many columns: ${reason}`, () => {
  test.each(WEIGHT_DTYPES)('%s', async (dtype) => {
    const operands = {
      x: { shape: [2, WIDTH] },
      weight: { shape: [COLUMNS, WIDTH], fill: { kind: 'normal', scale: 0.2 } },
    } as const;
    const attributes = { segments: [{ start: 0, count: COLUMNS - 3 }] };
    for (const one of [backend!, plain!]) {
      const { errors } = await runCase(one, 'linear', { name: 'many columns', operands, attributes, tolerance: 2e-6 }, dtype);
      for (const { relative } of Object.values(errors)) expect(relative).toBeLessThan(2e-6);
    }
  });
});
