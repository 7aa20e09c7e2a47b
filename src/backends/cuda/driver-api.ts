/** libcuda's functions, checked: every failure names the call, the status and the device. */

import { MatMambaError } from '../../errors.ts';
import { type NativeArgument, type NativeFunction, type NativeLibrary, loadLibrary } from './libraries.ts';

/** Numbers of cuda.h. */
export const DEVICE_ATTRIBUTE = { multiprocessors: 16, major: 75, minor: 76 } as const;
const FUNCTION_MAX_DYNAMIC_SHARED_BYTES = 8;
const STATUS = { outOfMemory: 2, notReady: 600 } as const;
const NON_BLOCKING = 1;
/** Events that only order streams. */
const DISABLE_TIMING = 2;
/** Captured calls that other threads make do not end the capture. */
const CAPTURE_MODE_RELAXED = 2;

/** Parameter types of the functions in use. */
const FUNCTIONS = {
  cuInit: 'uint32_t',
  cuDriverGetVersion: 'uint64_t',
  cuDeviceGetCount: 'uint64_t',
  cuDeviceGet: 'uint64_t, int',
  cuDeviceGetName: 'uint64_t, int, int',
  cuDeviceGetAttribute: 'uint64_t, int, int',
  cuDevicePrimaryCtxRetain: 'uint64_t, int',
  cuDevicePrimaryCtxRelease_v2: 'int',
  cuCtxSetCurrent: 'uint64_t',
  cuMemGetInfo_v2: 'uint64_t, uint64_t',
  cuMemAlloc_v2: 'uint64_t, uint64_t',
  cuMemFree_v2: 'uint64_t',
  cuMemHostAlloc: 'uint64_t, uint64_t, uint32_t',
  cuMemFreeHost: 'uint64_t',
  cuMemcpyHtoDAsync_v2: 'uint64_t, uint64_t, uint64_t, uint64_t',
  cuMemcpyDtoHAsync_v2: 'uint64_t, uint64_t, uint64_t, uint64_t',
  cuMemcpyDtoDAsync_v2: 'uint64_t, uint64_t, uint64_t, uint64_t',
  cuMemsetD8Async: 'uint64_t, uint8_t, uint64_t, uint64_t',
  cuStreamCreate: 'uint64_t, uint32_t',
  cuStreamDestroy_v2: 'uint64_t',
  cuStreamQuery: 'uint64_t',
  cuStreamWaitEvent: 'uint64_t, uint64_t, uint32_t',
  cuStreamSynchronize: 'uint64_t',
  cuStreamBeginCapture_v2: 'uint64_t, int',
  cuStreamEndCapture: 'uint64_t, uint64_t',
  cuGraphInstantiateWithFlags: 'uint64_t, uint64_t, uint64_t',
  cuGraphLaunch: 'uint64_t, uint64_t',
  cuGraphExecDestroy: 'uint64_t',
  cuGraphDestroy: 'uint64_t',
  cuModuleLoadData: 'uint64_t, uint64_t',
  cuModuleUnload: 'uint64_t',
  cuModuleGetFunction: 'uint64_t, uint64_t, str',
  cuFuncSetAttribute: 'uint64_t, int, int',
  cuLaunchKernel: 'uint64_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint64_t, uint64_t, uint64_t',
  cuLaunchKernelEx: 'uint64_t, uint64_t, uint64_t, uint64_t',
  cuEventCreate: 'uint64_t, uint32_t',
  cuEventDestroy_v2: 'uint64_t',
  cuEventRecord: 'uint64_t, uint64_t',
  cuEventElapsedTime: 'uint64_t, uint64_t, uint64_t',
} as const;

/** The context that this thread's calls go to: a process may hold several GPUs. */
let current = 0n;

export class DriverApi {
  readonly #library: NativeLibrary;
  readonly #calls: Readonly<Record<keyof typeof FUNCTIONS, NativeFunction>>;
  /** Where calls leave a handle or number. */
  readonly #cell = new BigUint64Array(2);
  readonly cell: bigint;
  /** How messages name the device. */
  device = 'CUDA';
  #context = 0n;

  private constructor(library: NativeLibrary) {
    this.#library = library;
    this.cell = library.address(this.#cell);
    this.#calls = Object.fromEntries(
      Object.entries(FUNCTIONS).map(([name, parameters]) => [name, library.bind(name, parameters)]),
    ) as Record<keyof typeof FUNCTIONS, NativeFunction>;
  }

  /** @throws DEVICE without a driver */
  static async load(): Promise<DriverApi> {
    const api = new DriverApi(await loadLibrary('cuda'));
    api.call('cuInit', 0);
    return api;
  }

  /** What the last call left in the first or second word of `cell`. */
  result(word = 0): bigint {
    return this.#cell[word]!;
  }
  resultInt(): number {
    return Number(BigInt.asIntN(32, this.#cell[0]!));
  }

  address(view: ArrayBufferView): bigint {
    return this.#library.address(view);
  }

  /** Host memory that the driver gave. */
  view(pointer: bigint, bytes: number): Uint8Array {
    return this.#library.memory(pointer, bytes);
  }

  /** From here on calls go to this context. */
  enter(context: bigint): void {
    this.#context = context;
    // An address may be that of a context that is gone.
    current = 0n;
    this.activate();
  }

  /** Makes this device the one that calls of any library go to. */
  activate(): void {
    if (current === this.#context || this.#context === 0n) return;
    const status = this.#calls.cuCtxSetCurrent(this.#context);
    if (status !== 0) throw this.failure('cuCtxSetCurrent', status);
    current = this.#context;
  }

  /** Calls and returns the status. */
  try(name: keyof typeof FUNCTIONS, ...args: readonly NativeArgument[]): number {
    this.activate();
    return this.#calls[name](...args);
  }

  /** @throws DEVICE, MEMORY naming call, status and device */
  call(name: keyof typeof FUNCTIONS, ...args: readonly NativeArgument[]): void {
    const status = this.try(name, ...args);
    if (status !== 0) throw this.failure(name, status);
  }

  failure(call: string, status: number): MatMambaError {
    const text = `${this.device}: ${call} failed with ${this.#statusName(status)}`;
    if (status === STATUS.outOfMemory)
      return new MatMambaError('MEMORY', text, { hint: 'use a smaller batch, recomputation, or a smaller dtype' });
    const hint =
      status === 100
        ? 'the driver sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES'
        : status === 999 || status === 802
          ? 'the driver does not answer as it should: check nvidia-smi, and restart the machine if it fails too'
          : undefined;
    return new MatMambaError('DEVICE', text, hint ? { hint } : {});
  }

  #statusName(status: number): string {
    const names = this.#library;
    try {
      const cells = new BigUint64Array(2);
      const name = names.bind('cuGetErrorName', 'int, uint64_t');
      const text = names.bind('cuGetErrorString', 'int, uint64_t');
      if (name(status, names.address(cells.subarray(0, 1))) !== 0) return `status ${status}`;
      text(status, names.address(cells.subarray(1, 2)));
      return `${names.text(cells[0]!)} (${names.text(cells[1]!)})`;
    } catch {
      return `status ${status}`;
    }
  }

  /** Whether all work on the stream is done. @throws DEVICE when some of it failed */
  isIdle(stream: bigint): boolean {
    const status = this.try('cuStreamQuery', stream);
    if (status === STATUS.notReady) return false;
    if (status !== 0) throw this.failure('a kernel', status);
    return true;
  }

  createStream(): bigint {
    this.call('cuStreamCreate', this.cell, NON_BLOCKING);
    return this.result();
  }

  createEvent(): bigint {
    this.call('cuEventCreate', this.cell, DISABLE_TIMING);
    return this.result();
  }

  beginCapture(stream: bigint): void {
    this.call('cuStreamBeginCapture_v2', stream, CAPTURE_MODE_RELAXED);
  }

  /** Dynamic shared memory beyond 48 KB has to be asked for. */
  allowSharedBytes(kernel: bigint, bytes: number): void {
    this.call('cuFuncSetAttribute', kernel, FUNCTION_MAX_DYNAMIC_SHARED_BYTES, bytes);
  }
}
