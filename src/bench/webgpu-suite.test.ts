/** The suite on a small shape: every row comes, with figures that fit together. */

import { afterAll, describe, expect, test } from 'vitest';
import { openTestWebGpu } from '../../test/support/webgpu-device.ts';
import { type WebGpuAdapter, type WebGpuResult, webGpuSuite } from './webgpu-suite.ts';

const { backend, reason } = await openTestWebGpu();
afterAll(() => backend?.dispose());

const OPTIONS = {
  small: true,
  repetition: { least: 1, most: 1, budgetMs: 0 },
  signal: new AbortController().signal,
};

const ROWS = [
  'f32 decode, level 1',
  'f32 prefill, level 8',
  'f32 decode, level 8',
  'f32 generate, level 8',
  'f16 decode, level 1',
];

async function results(options: Partial<Parameters<typeof webGpuSuite>[0]>): Promise<[WebGpuAdapter, ...WebGpuResult[]]> {
  const all = [];
  for await (const result of webGpuSuite({ ...OPTIONS, ...options })) all.push(result);
  return all as [WebGpuAdapter, ...WebGpuResult[]];
}

describe.skipIf(!backend)(backend ? 'the webgpu suite' : `the webgpu suite: ${reason}`, () => {
  test('measures the rows that are asked for', async () => {
    const [adapter, ...rows] = await results({ rows: ROWS });
    expect(adapter.features).toEqual(backend!.device.features);
    expect(adapter.copyGigabytes).toBeGreaterThan(0);
    expect(adapter.dispatchMicros).toBeGreaterThan(0);
    expect(rows.map(({ row }) => row)).toEqual(ROWS);
    const bytesOf = (name: string): number => rows.find(({ row }) => row === name)!.rates!.bytes;
    // Matrices are most of what a token reads.
    expect(bytesOf('f16 decode, level 1')).toBeLessThan(0.7 * bytesOf('f32 decode, level 1'));
    expect(bytesOf('f32 decode, level 8')).toBeLessThan(bytesOf('f32 decode, level 1'));
    const { device, rates } = rows[0]!;
    expect(rates!.gigabytes).toBeCloseTo(rates!.bytes / device.medianMs / 1e6, 6);
    expect(rates!.share).toBeCloseTo(rates!.gigabytes / adapter.copyGigabytes, 6);
  });

  test('leaves features out, and knows those that there are', async () => {
    const [adapter] = await results({ rows: ['none of them'], features: [] });
    expect(adapter.features).toEqual([]);
    expect(adapter.without).toContain('subgroups');
    await expect(results({ features: ['shader-f16' as 'f16'] })).rejects.toMatchObject({ code: 'OPTION' });
  });
});
