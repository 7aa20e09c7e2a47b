/**
 * What the trainer asks of a group of processes. One process is a group of size 1 behind the same interface, so there
 * is one code path.
 *
 * Invariants: every rank makes the same calls in the same order with the same lengths; calls are carried out in that
 * order, one at a time, and need not be awaited before the next is made; ranks that call different things get an error,
 * not a deadlock. A buffer belongs to the call until its promise settles. For a fixed number of ranks and fixed lengths, sums add up in a fixed order: they repeat bit for bit, and
 * every rank holds the same bits.
 */

import { MatMambaError } from '../errors.ts';

/** Numbers that can be summed over ranks. */
export type Summable = Float32Array | Float64Array;

/** What devices need of a group to speak with those of the other ranks. */
export type RankGroup = Pick<Communicator, 'rank' | 'size' | 'host' | 'broadcast' | 'barrier' | 'lost'>;

export interface Communicator {
  /** This process, 0 to size - 1. */
  readonly rank: number;
  readonly size: number;
  /** Name of the machine this rank runs on. */
  readonly host: string;
  /** Fires, with the reason, when a rank is gone; absent where the launcher ends the job instead. */
  readonly lost?: AbortSignal;
  /**
   * Sums `buffer` over all ranks, in place.
   * @throws DEVICE when the library fails or the other ranks do not arrive in time; DISPOSED after `finalize`
   */
  allReduceSum(buffer: Summable): Promise<void>;
  /** Copies the bytes of `buffer` on rank `root` to all ranks, in place. @throws OPTION, DEVICE, DISPOSED */
  broadcast(buffer: ArrayBufferView, root: number): Promise<void>;
  /** Settles once every rank has called it. @throws DEVICE, DISPOSED */
  barrier(): Promise<void>;
  /**
   * Ends the whole job at once, naming this rank and its host. A group of one only throws.
   * @throws DEVICE with the reason, when there is only one process
   */
  abort(reason: string): never;
  /**
   * Waits for the calls under way and for all ranks, then leaves the group. Harmless when called again. Only for a rank
   * that has done its work: one that failed lets its error end the process, or calls `abort`.
   * @throws DEVICE when other ranks are not about to leave
   */
  finalize(): Promise<void>;
}

/** `rank 1 of 4 on host node7`: how messages name a process. */
export function rankName({ rank, size, host }: Pick<Communicator, 'rank' | 'size' | 'host'>): string {
  return `rank ${rank} of ${size} on host ${host}`;
}

/** @throws OPTION unless `root` is a rank of the group */
export function checkRoot(root: number, size: number): void {
  if (Number.isInteger(root) && root >= 0 && root < size) return;
  throw new MatMambaError('OPTION', `broadcast from rank ${root}, but there are only ranks 0 to ${size - 1}`);
}

/** A group of one: every call is done already. */
export class SingleProcess implements Communicator {
  readonly rank = 0;
  readonly size = 1;
  readonly host = 'localhost';

  async allReduceSum(_buffer: Summable): Promise<void> {}

  async broadcast(_buffer: ArrayBufferView, root: number): Promise<void> {
    checkRoot(root, 1);
  }

  async barrier(): Promise<void> {}

  abort(reason: string): never {
    throw new MatMambaError('DEVICE', reason);
  }

  async finalize(): Promise<void> {}
}
