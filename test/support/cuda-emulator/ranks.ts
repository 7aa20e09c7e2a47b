/**
 * Work between emulated devices: done by the host's communicator, as late as a GPU might do it, when the device waits for
 * it. A program that uses a sum too early, or changes what is being summed, gets wrong numbers.
 */

import type { Communicator, RankGroup } from '../../../src/distributed/communicator.ts';
import type { RankLaunch } from '../../../src/ops/cuda-kernel.ts';

/** Device memory as the host reaches it. */
export interface Copies {
  toHost(to: Uint8Array, device: bigint): void;
  toDevice(device: bigint, from: Uint8Array): void;
}

export class EmulatedRanks {
  readonly #group: Communicator;
  readonly #copies: Copies;
  #underWay: RankLaunch[] = [];

  /** @param group with all that a communicator has */
  constructor(group: RankGroup, copies: Copies) {
    this.#group = group as Communicator;
    this.#copies = copies;
  }

  add(launch: RankLaunch): void {
    this.#underWay.push(launch);
  }

  async join(): Promise<void> {
    const launches = this.#underWay;
    this.#underWay = [];
    for (const { kind, parts } of launches) {
      for (const { from, to, count, root } of parts) {
        const values = new Float32Array(count);
        const bytes = new Uint8Array(values.buffer);
        this.#copies.toHost(bytes, from);
        await (kind === 'broadcast' ? this.#group.broadcast(bytes, root) : this.#group.allReduceSum(values));
        if (kind === 'reduce' && root !== this.#group.rank) values.fill(0);
        this.#copies.toDevice(to, bytes);
      }
    }
  }
}
