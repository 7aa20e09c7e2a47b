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
    { title: 'ms', align: right },
    { title: 'quartiles', align: right },
    { title: 'items/s', align: right },
    { title: 'floor ms', align: right },
    { title: 'x floor', align: right },
    { title: 'ops ms', align: right },
  ];
  const rows = results.map(({ row, dtype, timing, items, floorMs, ops }) => [
    row,
    dtype,
    formatNumber(timing.medianMs),
    timing.quartilesMs.map((ms) => formatNumber(ms)).join('-'),
    formatNumber((1000 * items) / timing.medianMs),
    formatNumber(floorMs),
    formatNumber(timing.medianMs / floorMs),
    formatNumber(ops.reduce((sum, { ms }) => sum + ms, 0)),
  ]);
  io.line(`\n${table(columns, rows, io.columns)}`);
}
