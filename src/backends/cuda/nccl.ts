/**
 * NCCL's functions, checked: every failure names the call, its status, the rank and the device, and what to do. Calls
 * block until the work is asked for, not until it is done; it is done in the order of the stream that they are given.
 */

import { type RankGroup, rankName } from '../../distributed/communicator.ts';
import { MatMambaError } from '../../errors.ts';
import type { RankLaunch } from '../../ops/cuda-kernel.ts';
import { type NativeArgument, type NativeFunction, type NativeLibrary, loadLibrary } from './libraries.ts';
import { withinTime } from './watchdog.ts';

/** Numbers of nccl.h. */
const FLOAT32 = 7;
const SUM = 0;
const STATUS = {
  unhandledCuda: 1,
  system: 2,
  internal: 3,
  invalidArgument: 4,
  invalidUsage: 5,
  remote: 6,
  inProgress: 7,
} as const;
const ID_BYTES = 128;
/** A struct that is passed by value. */
const ID_TYPE = 'ncclUniqueId';

/** Parameter types of the functions in use. */
const FUNCTIONS = {
  ncclGetVersion: 'uint64_t',
  ncclGetUniqueId: 'uint64_t',
  ncclCommInitRank: `uint64_t, int, ${ID_TYPE}, int`,
  ncclCommDestroy: 'uint64_t',
  ncclCommAbort: 'uint64_t',
  ncclCommGetAsyncError: 'uint64_t, uint64_t',
  ncclGroupStart: '',
  ncclGroupEnd: '',
  ncclAllReduce: 'uint64_t, uint64_t, size_t, int, int, uint64_t, uint64_t',
  ncclReduce: 'uint64_t, uint64_t, size_t, int, int, int, uint64_t, uint64_t',
  ncclBroadcast: 'uint64_t, uint64_t, size_t, int, int, uint64_t, uint64_t',
} as const;

/** For those that the user has not set. */
const SETTINGS = {
  // Otherwise ranks wait for each other whenever one of them records a program again, which they do at times of their own.
  NCCL_GRAPH_REGISTER: '0',
} as const;

type FunctionName = keyof typeof FUNCTIONS;

/** How long ranks wait for each other while NCCL connects or disconnects them, milliseconds. */
const SETUP_MS = 10 * 60_000;

const LOG_HINT = 'NCCL_DEBUG=INFO in the environment of all ranks prints what NCCL does';

/** What to do about a status. */
const HINTS: Readonly<Record<number, string>> = {
  [STATUS.unhandledCuda]: `a CUDA call failed inside NCCL, often for want of device memory or of shared memory (/dev/shm); ${LOG_HINT}`,
  [STATUS.system]: `the network between the ranks or shared memory (/dev/shm) is not usable; NCCL_SOCKET_IFNAME chooses the interface, ${LOG_HINT}`,
  [STATUS.internal]: LOG_HINT,
  [STATUS.invalidArgument]: `all ranks need the same NCCL version; ${LOG_HINT}`,
  [STATUS.invalidUsage]: `every rank needs a GPU of its own: start as many processes on a machine as it has GPUs; ${LOG_HINT}`,
  [STATUS.remote]: 'another rank failed: what it printed says why; go on from the last checkpoint',
};

/** A communicator of NCCL: this rank's GPU among those of all ranks. */
export class NcclGroup {
  readonly #library: NativeLibrary;
  readonly #ranks: RankGroup;
  readonly #device: string;
  readonly #calls: Readonly<Record<FunctionName, NativeFunction>>;
  readonly #cell = new BigUint64Array(1);
  #handle = 0n;
  /** Of NCCL: `2.28.3`. */
  readonly version: string;

  private constructor(library: NativeLibrary, ranks: RankGroup, device: string) {
    this.#library = library;
    this.#ranks = ranks;
    this.#device = device;
    library.declareBytes(ID_TYPE, ID_BYTES);
    this.#calls = Object.fromEntries(
      Object.entries(FUNCTIONS).map(([name, parameters]) => [name, library.bind(name, parameters)]),
    ) as Record<FunctionName, NativeFunction>;
    this.#call('ncclGetVersion', this.#cellAddress());
    const version = Number(BigInt.asIntN(32, this.#cell[0]!));
    this.version = `${Math.floor(version / 10_000)}.${Math.floor((version % 10_000) / 100)}.${version % 100}`;
  }

  /**
   * Joins the GPUs of all ranks: rank 0 makes the id, which goes to the others over the host. The device's context must
   * be this thread's. Every rank must call it.
   * @throws DEVICE
   */
  static async join(ranks: RankGroup, device: string): Promise<NcclGroup> {
    for (const [name, value] of Object.entries(SETTINGS)) {
      // oxlint-disable-next-line node/no-process-env -- NCCL takes settings no other way
      process.env[name] ??= value;
    }
    const group = new NcclGroup(await loadLibrary('nccl'), ranks, device);
    const id = new Uint8Array(ID_BYTES);
    if (ranks.rank === 0) group.#call('ncclGetUniqueId', group.#library.address(id));
    await ranks.broadcast(id, 0);
    // From here on NCCL itself waits for the others: all must be there.
    await ranks.barrier();
    group.settingUp(() => group.#call('ncclCommInitRank', group.#cellAddress(), ranks.size, { bytes: id }, ranks.rank));
    group.#handle = group.#cell[0]!;
    return group;
  }

  /** Runs `body`, in which NCCL waits for the other ranks and nobody can end it: too long, and the process ends. */
  settingUp<R>(body: () => R): R {
    const words = `the ranks did not get through to each other within ${SETUP_MS / 1000} seconds; the process ends`;
    return withinTime(SETUP_MS, this.failure(words, LOG_HINT).message, body);
  }

  /** Asks for sums or copies, all together, on a stream. @throws DEVICE */
  put({ kind, parts }: RankLaunch, stream: bigint): void {
    this.#call('ncclGroupStart');
    try {
      for (const { from, to, count, root } of parts) {
        if (kind === 'all-reduce') this.#call('ncclAllReduce', from, to, count, FLOAT32, SUM, this.#handle, stream);
        else if (kind === 'reduce') this.#call('ncclReduce', from, to, count, FLOAT32, SUM, root, this.#handle, stream);
        else this.#call('ncclBroadcast', from, to, count, FLOAT32, root, this.#handle, stream);
      }
    } catch (error) {
      this.#calls.ncclGroupEnd();
      throw error;
    }
    this.#call('ncclGroupEnd');
  }

  /** What went wrong since the last call, while nobody looked; undefined when nothing did. */
  asyncError(): MatMambaError | undefined {
    if (this.#handle === 0n) return undefined;
    this.#call('ncclCommGetAsyncError', this.#handle, this.#cellAddress());
    const status = Number(BigInt.asIntN(32, this.#cell[0]!));
    return status === 0 || status === STATUS.inProgress ? undefined : this.#failure('work between the ranks', status);
  }

  /** An error of this rank's part, in words that name rank and device. */
  failure(words: string, hint?: string): MatMambaError {
    return new MatMambaError('DEVICE', `${rankName(this.#ranks)}, ${this.#device}: ${words}`, hint ? { hint } : {});
  }

  /** Leaves after all work is done; recordings that hold work of NCCL must be gone. */
  leave(): void {
    const handle = this.#handle;
    this.#handle = 0n;
    if (handle !== 0n) this.settingUp(() => this.#calls.ncclCommDestroy(handle));
  }

  /** Ends work that waits for ranks that will not come; on another thread, because it may take long. */
  async abort(): Promise<void> {
    const handle = this.#handle;
    this.#handle = 0n;
    if (handle !== 0n) await this.#library.background('ncclCommAbort', FUNCTIONS.ncclCommAbort, handle);
  }

  #cellAddress(): bigint {
    return this.#library.address(this.#cell);
  }

  #call(name: FunctionName, ...args: readonly NativeArgument[]): void {
    const status = this.#calls[name](...args);
    if (status !== 0) throw this.#failure(name, status);
  }

  #failure(call: string, status: number): MatMambaError {
    const text = this.#library.bindText('ncclGetErrorString', 'int')(status);
    let last = '';
    try {
      // Since NCCL 2.13.
      last = this.#library.bindText('ncclGetLastError', 'uint64_t')(this.#handle).trim();
    } catch {
      // The status has to do.
    }
    return this.failure(`${call} failed: ${text} (status ${status})${last && `: ${last}`}`, HINTS[status] ?? LOG_HINT);
  }
}
