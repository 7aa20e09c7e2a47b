/** Where a program waits for work between ranks: in front of the first step that uses what it gives, and at the end. */

import type { GraphNode } from '../../graph/graph.ts';
import type { CudaLaunch } from '../../ops/cuda-kernel.ts';

const BETWEEN_RANKS: ReadonlySet<CudaLaunch['kind']> = new Set(['all-reduce', 'reduce', 'broadcast']);

export class RankJoins {
  /** Values that are being summed or copied. */
  readonly #underWay = new Set<number>();

  /** The launches of a step, in order with those of all steps before it, and the waiting they need. */
  place(nodes: readonly GraphNode[], launches: readonly CudaLaunch[]): readonly CudaLaunch[] {
    const values = nodes.flatMap(({ inputs, outputs }) =>
      [...Object.values(inputs), ...Object.values(outputs)].map(({ value }) => value),
    );
    if (!launches.some(({ kind }) => BETWEEN_RANKS.has(kind))) {
      const uses = values.some(({ id }) => this.#underWay.has(id));
      return uses ? [...this.end(), ...launches] : launches;
    }
    // Work between ranks is done in order, so a second sum of the same waits for the first anyway.
    for (const { id } of values) this.#underWay.add(id);
    // Memory of the arena may be another value's in the next step.
    return values.every(({ kind }) => kind === 'parameter') ? launches : [...launches, ...this.end()];
  }

  /** What is left to wait for. */
  end(): readonly CudaLaunch[] {
    if (this.#underWay.size === 0) return [];
    this.#underWay.clear();
    return [{ kind: 'join' }];
  }
}
