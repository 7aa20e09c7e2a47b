/** Sums the profiles of many runs by op. */

import type { OpProfile } from '../backends/backend.ts';

export interface OpTotal {
  /** The op, with the part of the model where that tells sizes apart: `mixer linear`, `lm_head linear`. */
  readonly op: string;
  /** Nodes that ran. */
  count: number;
  ms: number;
  flops: number;
  bytes: number;
}

export class ProfileTotals {
  readonly #totals = new Map<string, OpTotal>();
  /** Profiles that were added. */
  runs = 0;

  add(ops: readonly OpProfile[]): void {
    this.runs++;
    for (const { op, scope, ms, flops, bytes } of ops) {
      const part = scope.split('.').at(-1) ?? '';
      const name = /^\d*$/.test(part) ? op : `${part} ${op}`;
      let total = this.#totals.get(name);
      if (!total) this.#totals.set(name, (total = { op: name, count: 0, ms: 0, flops: 0, bytes: 0 }));
      total.count++;
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
