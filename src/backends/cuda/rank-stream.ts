/**
 * Work between the GPUs of a job, on a stream beside the backend's: it starts when what was asked for before it is done,
 * and what follows runs meanwhile, until `join`. All of it can be captured with the backend's stream.
 */

import type { RankGroup } from '../../distributed/communicator.ts';
import type { MatMambaError } from '../../errors.ts';
import { messageOf } from '../../errors.ts';
import type { RankLaunch } from '../../ops/cuda-kernel.ts';
import type { DriverApi } from './driver-api.ts';
import { NcclGroup } from './nccl.ts';

/** How often the job is asked after while this rank waits for its GPU. */
const LOOK_EVERY_MS = 100;
/** How long this rank waits for its GPU to give up what others left unfinished. */
const ABORT_MS = 10_000;

export class RankStream {
  readonly group: NcclGroup;
  readonly #api: DriverApi;
  readonly #main: bigint;
  readonly #ranks: RankGroup;
  readonly #side: bigint;
  readonly #fork: bigint;
  readonly #joined: bigint;
  #lastLook = 0;
  #failure: MatMambaError | undefined;

  private constructor(api: DriverApi, main: bigint, ranks: RankGroup, group: NcclGroup) {
    this.#api = api;
    this.#main = main;
    this.#ranks = ranks;
    this.group = group;
    this.#side = api.createStream();
    this.#fork = api.createEvent();
    this.#joined = api.createEvent();
  }

  /** Every rank must call it. @throws DEVICE */
  static async open(api: DriverApi, main: bigint, ranks: RankGroup): Promise<RankStream> {
    return new RankStream(api, main, ranks, await NcclGroup.join(ranks, api.device));
  }

  /** @throws DEVICE */
  put(launch: RankLaunch): void {
    const { kind, parts } = launch;
    this.#follow(this.#fork, this.#main, this.#side);
    this.group.put(launch, this.#side);
    if (kind !== 'reduce') return;
    for (const { to, count, root } of parts) {
      if (root !== this.#ranks.rank) this.#api.call('cuMemsetD8Async', to, 0, 4 * count, this.#side);
    }
  }

  /** What is asked for on the backend's stream from here on waits for all that was put. */
  join(): void {
    this.#follow(this.#joined, this.#side, this.#main);
  }

  /** Asked again and again while this rank waits. @throws DEVICE when the other ranks will not come */
  look(): void {
    if (this.#failure) throw this.#failure;
    const now = performance.now();
    if (now - this.#lastLook < LOOK_EVERY_MS) return;
    this.#lastLook = now;
    const { lost } = this.#ranks;
    const failure = lost?.aborted
      ? this.group.failure(`stopped waiting for the other ranks: ${messageOf(lost.reason)}`, 'go on from the last checkpoint')
      : this.group.asyncError();
    if (failure) throw failure;
  }

  /** Whether the ranks can still work together. */
  get works(): boolean {
    return this.#failure === undefined;
  }

  /** Ends the work of NCCL that waits for others, within some seconds. */
  async abort(failure: MatMambaError): Promise<void> {
    if (this.#failure) return;
    this.#failure = failure;
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise((resolve) => (timer = setTimeout(resolve, ABORT_MS)));
    await Promise.race([this.group.abort().catch(() => {}), limit]);
    clearTimeout(timer);
  }

  /** After all work is done and all recordings are gone. */
  dispose(): void {
    if (this.#failure) return;
    this.group.leave();
    this.#api.try('cuEventDestroy_v2', this.#fork);
    this.#api.try('cuEventDestroy_v2', this.#joined);
    this.#api.try('cuStreamDestroy_v2', this.#side);
  }

  #follow(event: bigint, first: bigint, then: bigint): void {
    this.#api.call('cuEventRecord', event, first);
    this.#api.call('cuStreamWaitEvent', then, event, 0);
  }
}
