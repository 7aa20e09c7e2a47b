/** What `matmamba bench webgpu` prints. */

import { ProfileTotals } from '../../bench/profile-totals.ts';
import {
  type WebGpuAdapter,
  type WebGpuRefusal,
  type WebGpuResult,
  type WebGpuSuiteOptions,
  webGpuSuite,
} from '../../bench/webgpu-suite.ts';
import type { Io } from '../io.ts';
import { profileTable } from '../profile-table.ts';
import { formatBytes, formatNumber, table } from '../text-layout.ts';
import type { GpuBenchOutput } from './gpu.ts';

export async function benchWebGpu(suite: WebGpuSuiteOptions, { json, ops }: GpuBenchOutput, io: Io): Promise<void> {
  const results: (WebGpuResult | WebGpuRefusal)[] = [];
  try {
    for await (const result of webGpuSuite(suite)) {
      if ('adapter' in result) {
        if (json) io.json({ kind: 'adapter', ...result });
        else io.line(`${adapterLines(result)}\n`);
        continue;
      }
      results.push(result);
      if ('refused' in result) {
        if (json) io.json({ kind: 'webgpu', ...result });
        continue;
      }
      const { ops: profile, ...figures } = result;
      const totals = new ProfileTotals();
      totals.add(profile);
      if (json) io.json({ kind: 'webgpu', ...figures, ...(ops ? { ops: totals.sorted } : {}) });
      else if (ops && profile.length > 0) io.line(`\n${result.row}\n${profileTable(totals.sorted, io.columns)}`);
    }
  } finally {
    if (!json && results.length > 0) showResults(results, io);
  }
}

function adapterLines({ adapter, features, without, copyGigabytes, dispatchMicros, roundTripMs }: WebGpuAdapter): string {
  const names = (list: readonly string[]): string => list.join(', ') || 'none';
  return [
    adapter,
    `features: ${names(features)}; without: ${names(without)}`,
    `copies ${formatNumber(copyGigabytes)} GB/s; a dispatch that waits for another ${formatNumber(dispatchMicros)} us; a round trip ${formatNumber(roundTripMs)} ms`,
  ].join('\n');
}

function showResults(results: readonly (WebGpuResult | WebGpuRefusal)[], io: Io): void {
  const right = 'right' as const;
  const columns = [
    { title: 'row' },
    ...['call ms', 'GPU ms', 'quartiles', 'tokens/s', 'bytes', 'GB/s', 'of copy', 'TFLOP/s'].map((title) => ({
      title,
      align: right,
    })),
  ];
  const rows = results.map((result) => {
    if ('refused' in result) return [`${result.row}: ${result.refused}`, ...columns.slice(1).map(() => '')];
    const { row, device, timing, items, rates } = result;
    return [
      row,
      formatNumber(timing.medianMs),
      ...(rates
        ? [formatNumber(device.medianMs), device.quartilesMs.map((ms) => formatNumber(ms)).join('-')]
        : ['-', timing.quartilesMs.map((ms) => formatNumber(ms)).join('-')]),
      formatNumber((1000 * items) / timing.medianMs),
      ...(rates
        ? [
            formatBytes(rates.bytes),
            formatNumber(rates.gigabytes),
            `${Math.round(100 * rates.share)}%`,
            formatNumber(rates.teraflops),
          ]
        : ['-', '-', '-', '-']),
    ];
  });
  io.line(`\n${table(columns, rows, io.columns)}`);
}
