/** What `matmamba bench gpu` prints. */

import { type GpuResult, type GpuSuiteOptions, gpuSuite } from '../../bench/gpu-suite.ts';
import { ProfileTotals } from '../../bench/profile-totals.ts';
import type { Io } from '../io.ts';
import { profileTable } from '../profile-table.ts';
import { formatNumber, table } from '../text-layout.ts';

export interface GpuBenchOutput {
  readonly json: boolean;
  /** Print the profile of every row by op. */
  readonly ops: boolean;
}

export async function benchGpu(suite: GpuSuiteOptions, { json, ops }: GpuBenchOutput, io: Io): Promise<void> {
  const results: GpuResult[] = [];
  try {
    for await (const result of gpuSuite(suite)) {
      if (!('row' in result)) {
        if (json) io.json({ kind: 'rates', ...result });
        else
          io.line(
            `${result.device}: bf16 products ${formatNumber(result.productTflops)} TFLOP/s, copies ${formatNumber(result.copyGigabytes)} GB/s\n`,
          );
        continue;
      }
      results.push(result);
      const totals = totalsOf(result);
      const { ops: _, ...figures } = result;
      if (json) io.json({ kind: 'gpu', ...figures, ...(ops ? { ops: totals.sorted } : {}) });
      else if (ops) io.line(`\n${result.row}\n${profileTable(totals.sorted, io.columns)}`);
    }
  } finally {
    if (!json && results.length > 0) showResults(results, io);
  }
}

function totalsOf({ ops }: GpuResult): ProfileTotals {
  const totals = new ProfileTotals();
  totals.add(ops);
  return totals;
}

function showResults(results: readonly GpuResult[], io: Io): void {
  const right = 'right' as const;
  const columns = [
    { title: 'row' },
    { title: 'dtype' },
    { title: 'GPU ms', align: right },
    { title: 'quartiles', align: right },
    { title: 'floor', align: right },
    { title: 'x', align: right },
    { title: 'call ms', align: right },
    { title: 'items/s', align: right },
  ];
  const rows = results.map(({ row, dtype, device, timing, items, floorMs }) => [
    row,
    dtype,
    formatNumber(device.medianMs),
    device.quartilesMs.map((ms) => formatNumber(ms)).join('-'),
    floorMs > 0 ? formatNumber(floorMs) : '-',
    floorMs > 0 ? formatNumber(device.medianMs / floorMs) : '-',
    formatNumber(timing.medianMs),
    formatNumber((1000 * items) / timing.medianMs),
  ]);
  io.line(`\n${table(columns, rows, io.columns)}`);
}
