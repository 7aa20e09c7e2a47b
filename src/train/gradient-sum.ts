/** Sums the gradients of all parameters over the ranks, in buckets, where the host can reach the device's memory. */

import { Buckets } from '../distributed/buckets.ts';
import type { Communicator } from '../distributed/communicator.ts';
import { type TrainingEngine, hostViewOf } from './engine.ts';

export class GradientSum {
  #buckets: Buckets | undefined;

  /** Replaces every gradient by its sum over the ranks; nothing to do for one, or where the engine's programs do it. @throws DEVICE */
  async reduce(engine: TrainingEngine, communicator: Communicator): Promise<void> {
    if (communicator.size === 1 || engine.sumsOnDevice) return;
    this.#buckets ??= new Buckets(communicator, partsOf(engine));
    await this.#buckets.finish();
  }
}

/** The last layer's gradients first: that is the order in which a backward pass completes them. */
function partsOf(engine: TrainingEngine): { name: string; values: Float32Array }[] {
  return engine
    .gradients()
    .toReversed()
    .map((weight) => ({ name: weight.spec.name, values: hostViewOf(weight) }));
}
