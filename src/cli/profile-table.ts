/** Sums op profiles by op and prints where the time went. */

import type { OpProfile } from '../backends/backend.ts';
import { formatNumber, table } from './text-layout.ts';

export interface OpTotal {
  readonly op: string;
  runs: number;
  ms: number;
  flops: number;
  bytes: number;
}

/** Gathers profiles; ops of the same name are summed, apart from the head, which is a linear of another size. */
export class ProfileTotals {
  readonly #totals = new Map<string, OpTotal>();

  add(ops: readonly OpProfile[]): void {
    for (const { op, scope, ms, flops, bytes } of ops) {
      const part = scope.split('.').at(-1) ?? '';
      const name = /^\d*$/.test(part) ? op : `${part} ${op}`;
      let total = this.#totals.get(name);
      if (!total) this.#totals.set(name, (total = { op: name, runs: 0, ms: 0, flops: 0, bytes: 0 }));
      total.runs++;
      total.ms += ms;
      total.flops += flops;
      total.bytes += bytes;
    }
  }

  /** The most expensive first. */
  get sorted(): readonly Readonly<OpTotal>[] {
    return [...this.#totals.values()].sort((a, b) => b.ms - a.ms);
  }
}

export function profileTable(totals: readonly Readonly<OpTotal>[], columns: number): string {
  const all = totals.reduce((sum, { ms }) => sum + ms, 0);
  const rows = totals.map(({ op, runs, ms, flops, bytes }) => [
    op,
    String(runs),
    formatNumber(ms),
    `${((100 * ms) / (all || 1)).toFixed(1)}%`,
    ms > 0 ? formatNumber(flops / ms / 1e6) : '-',
    ms > 0 ? formatNumber(bytes / ms / 1e6) : '-',
  ]);
  const right = 'right' as const;
  const titles = ['runs', 'ms', 'share', 'GFLOP/s', 'GB/s'].map((title) => ({ title, align: right }));
  return table([{ title: 'op' }, ...titles], [...rows, ['all', '', formatNumber(all), '', '', '']], columns);
}
