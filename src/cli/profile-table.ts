/** Where the time of a model's ops went, as a table. */

import type { OpTotal } from '../bench/profile-totals.ts';
import { formatNumber, table } from './text-layout.ts';

/** `runs` divides times and counts, so that the table shows one run. */
export function profileTable(totals: readonly Readonly<OpTotal>[], columns: number, runs = 1): string {
  const all = totals.reduce((sum, { ms }) => sum + ms, 0);
  const rows = totals.map(({ op, count, ms, flops, bytes }) => [
    op,
    formatNumber(ms / runs),
    `${((100 * ms) / (all || 1)).toFixed(1)}%`,
    ms > 0 ? formatNumber(flops / ms / 1e6) : '-',
    ms > 0 ? formatNumber(bytes / ms / 1e6) : '-',
    String(Math.round(count / runs)),
  ]);
  const right = 'right' as const;
  const titles = ['ms', 'share', 'GFLOP/s', 'GB/s', 'nodes'].map((title) => ({ title, align: right }));
  return table([{ title: 'op' }, ...titles], [...rows, ['all', formatNumber(all / runs), '', '', '', '']], columns);
}
