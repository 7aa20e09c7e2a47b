/**
 * A CUDA device through libcuda: one context, one stream. Launches are captured once as a CUDA graph, whose replay is
 * one call.
 */

import type { RankGroup } from '../../distributed/communicator.ts';
import { MatMambaError } from '../../errors.ts';
import type { CudaArgument, CudaLaunch, KernelLaunch, RankLaunch } from '../../ops/cuda-kernel.ts';
import { Compiler } from './compiler.ts';
import { CublasLt, type Product, WORKSPACE_BYTES } from './cublaslt.ts';
import type { CudaDriver, DeviceFacts, HostBuffer, HostCopy, Recording } from './driver.ts';
import { DEVICE_ATTRIBUTE, DriverApi } from './driver-api.ts';
import { RankStream } from './rank-stream.ts';

/** Busy asking for this long costs less than giving up the thread; after it, timers and signals get their turn. */
const SPIN_MS = 0.3;
/** After this long the host sleeps between questions. */
const YIELD_MS = 20;
/** Dynamic shared memory that needs no permission whatever a kernel has of its own. */
const PLAIN_DYNAMIC_BYTES = 0;
const NAME_BYTES = 64;
/** CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION */
const PROGRAMMATIC_SERIALIZATION = 6;

interface LoadedKernel {
  readonly handle: bigint;
  sharedBytes: number;
}

export class GpuDriver implements CudaDriver {
  readonly facts: DeviceFacts;
  readonly api: DriverApi;
  readonly stream: bigint;
  readonly #device: number;
  readonly #compiler: Compiler;
  readonly #products: CublasLt;
  readonly #modules = new Map<string, Promise<bigint>>();
  readonly #kernels = new Map<string, LoadedKernel>();
  readonly #workspace: bigint;
  readonly #early = { config: new DataView(new ArrayBuffer(56)), attribute: new DataView(new ArrayBuffer(72)) };
  /** Work between ranks; undefined for a group of one. */
  #ranks: RankStream | undefined;
  /** Recordings that hold work between ranks: they must go before the group does. */
  readonly #shared = new Set<() => void>();
  #disposed = false;

  private constructor(
    api: DriverApi,
    device: number,
    stream: bigint,
    facts: DeviceFacts,
    compiler: Compiler,
    products: CublasLt,
    workspace: bigint,
  ) {
    this.api = api;
    this.#device = device;
    this.stream = stream;
    this.facts = facts;
    this.#compiler = compiler;
    this.#products = products;
    this.#workspace = workspace;
  }

  /** Opens GPU `index`. @throws DEVICE without driver, GPU, NVRTC or cuBLASLt */
  static async open(index = 0): Promise<GpuDriver> {
    const api = await DriverApi.load();
    api.call('cuDeviceGetCount', api.cell);
    const count = api.resultInt();
    if (index >= count) {
      throw new MatMambaError('DEVICE', `there is no GPU ${index}: CUDA sees ${count}`, {
        hint: 'GPUs are numbered from 0; check CUDA_VISIBLE_DEVICES',
      });
    }
    api.call('cuDeviceGet', api.cell, index);
    const device = api.resultInt();
    const name = new Uint8Array(NAME_BYTES);
    api.call('cuDeviceGetName', api.address(name), name.length, device);
    api.device = Buffer.from(name).toString('latin1').split('\0')[0]!;
    const attribute = (which: number): number => {
      api.call('cuDeviceGetAttribute', api.cell, which, device);
      return api.resultInt();
    };
    const [major, minor] = [attribute(DEVICE_ATTRIBUTE.major), attribute(DEVICE_ATTRIBUTE.minor)];
    if (major < 8) {
      throw new MatMambaError(
        'DEVICE',
        `${api.device} has compute capability ${major}.${minor}; the kernels need 8.0 (Ampere) or later`,
      );
    }
    api.call('cuDriverGetVersion', api.cell);
    const driver = api.resultInt();
    api.call('cuDevicePrimaryCtxRetain', api.cell, device);
    api.enter(api.result());
    api.call('cuMemGetInfo_v2', api.cell, api.cell + 8n);
    const memoryBytes = Number(api.result(1));
    const stream = api.createStream();
    const architecture = `sm_${major}${minor}`;
    const compiler = await Compiler.load(architecture);
    api.call('cuMemAlloc_v2', api.cell, WORKSPACE_BYTES);
    const workspace = api.result();
    const products = await CublasLt.load(api, api.device, workspace);
    const versions = `CUDA ${Math.floor(driver / 1000)}.${Math.floor((driver % 1000) / 10)}, NVRTC ${compiler.version}, cuBLASLt ${products.version}`;
    const facts = {
      name: api.device,
      architecture,
      multiprocessors: attribute(DEVICE_ATTRIBUTE.multiprocessors),
      memoryBytes,
      versions,
    };
    return new GpuDriver(api, device, stream, facts, compiler, products, workspace);
  }

  allocate(bytes: number, what: string): bigint {
    const status = this.api.try('cuMemAlloc_v2', this.api.cell, Math.max(256, bytes));
    if (status === 0) return this.api.result();
    if (status !== 2) throw this.api.failure('cuMemAlloc_v2', status);
    this.api.call('cuMemGetInfo_v2', this.api.cell, this.api.cell + 8n);
    const [free, total] = [Number(this.api.result(0)), Number(this.api.result(1))];
    const gigabytes = (n: number): string => `${(n / 1e9).toFixed(2)} GB`;
    throw new MatMambaError(
      'MEMORY',
      `${this.facts.name}: no room for ${what} (${gigabytes(bytes)}; ${gigabytes(free)} of ${gigabytes(total)} are free)`,
      { hint: 'use a smaller batch, recomputation, or a smaller dtype; other processes may hold memory (nvidia-smi)' },
    );
  }

  free(pointer: bigint): void {
    if (!this.#disposed) this.api.call('cuMemFree_v2', pointer);
  }

  hostBuffer(bytes: number): HostBuffer {
    this.api.call('cuMemHostAlloc', this.api.cell, Math.max(64, bytes), 0);
    const pointer = this.api.result();
    return {
      pointer,
      bytes: this.api.view(pointer, bytes),
      free: () => void (this.#disposed || this.api.call('cuMemFreeHost', pointer)),
    };
  }

  copyToDevice(device: bigint, from: Uint8Array): void {
    if (from.length === 0) return;
    this.api.call('cuMemcpyHtoDAsync_v2', device, this.api.address(from), from.length, this.stream);
    this.api.call('cuStreamSynchronize', this.stream);
  }

  copyToHost(to: Uint8Array, device: bigint): void {
    if (to.length === 0) return;
    this.api.call('cuMemcpyDtoHAsync_v2', this.api.address(to), device, to.length, this.stream);
    this.api.call('cuStreamSynchronize', this.stream);
  }

  copy({ kind, host, device, bytes }: HostCopy): void {
    if (kind === 'to-device') this.api.call('cuMemcpyHtoDAsync_v2', device, host, bytes, this.stream);
    else this.api.call('cuMemcpyDtoHAsync_v2', host, device, bytes, this.stream);
  }

  fillZero(device: bigint, bytes: number): void {
    if (bytes > 0) this.api.call('cuMemsetD8Async', device, 0, bytes, this.stream);
  }

  async record(launches: readonly CudaLaunch[], tf32 = false): Promise<Recording> {
    await this.#loadKernels(launches.filter((one) => one.kind === 'kernel'));
    const products: Product[] = [];
    const steps = launches.map((one) => {
      if (one.kind !== 'gemm') return one;
      const product = this.#products.prepare(one, tf32, this.stream);
      products.push(product);
      return product;
    });
    await this.#products.save();
    const { api, stream } = this;
    const put = (step: (typeof steps)[number]): void => ('run' in step ? step.run(stream) : this.#put(step));
    api.call('cuStreamSynchronize', stream);
    const isShared = this.#ranks !== undefined && launches.some(({ kind }) => isBetweenRanks(kind));
    const graph = isShared ? this.#ranks!.group.settingUp(() => this.#capture(steps, put)) : this.#capture(steps, put);
    api.call('cuGraphInstantiateWithFlags', api.cell, graph, 0n);
    const executable = api.result();
    api.call('cuGraphDestroy', graph);
    let isOpen = true;
    const close = (): void => {
      if (isOpen) api.call('cuGraphExecDestroy', executable);
      isOpen = false;
      this.#shared.delete(close);
    };
    if (isShared) this.#shared.add(close);
    return {
      bytes: 0,
      replay: () => api.call('cuGraphLaunch', executable, stream),
      replayTimed: async () => (await this.#time([executable], (graph) => api.call('cuGraphLaunch', graph, stream)))[0]!,
      time: () => this.#time(steps, put),
      free: () => {
        if (this.#disposed) return;
        close();
        for (const product of products) product.free();
      },
    };
  }

  async joinRanks(group: RankGroup): Promise<void> {
    if (this.#ranks) throw new MatMambaError('INTERNAL', `${this.facts.name} has joined a group already`);
    this.#ranks = await RankStream.open(this.api, this.stream, group);
  }

  async done(): Promise<void> {
    const start = performance.now();
    while (!this.api.isIdle(this.stream)) {
      await this.#lookAtRanks();
      const waited = performance.now() - start;
      if (waited > YIELD_MS) await new Promise((resolve) => setTimeout(resolve, 1));
      else if (waited > SPIN_MS) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  works(): boolean {
    if (this.#ranks?.works === false) return false;
    return this.api.try('cuStreamSynchronize', this.stream) === 0;
  }

  choices(): Readonly<Record<string, string>> {
    return this.#products.choices;
  }
  adoptChoices(choices: Readonly<Record<string, string>>): void {
    this.#products.adopt(choices);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const { api } = this;
    if (this.#ranks?.works !== false) api.try('cuStreamSynchronize', this.stream);
    for (const close of this.#shared) close();
    this.#ranks?.dispose();
    this.#products.dispose();
    api.try('cuMemFree_v2', this.#workspace);
    api.try('cuStreamDestroy_v2', this.stream);
    // The primary context goes with its last user, and all that was allocated in it.
    api.try('cuDevicePrimaryCtxRelease_v2', this.#device);
  }

  async #loadKernels(launches: readonly KernelLaunch[]): Promise<void> {
    const sources = [...new Set(launches.map(({ source }) => source))];
    const modules = new Map(
      await Promise.all(sources.map(async (source): Promise<[string, bigint]> => [source, await this.#module(source)])),
    );
    for (const { source, entry, sharedBytes = 0 } of launches) {
      const key = `${entry}\n${source}`;
      let kernel = this.#kernels.get(key);
      if (!kernel) {
        this.api.call('cuModuleGetFunction', this.api.cell, modules.get(source)!, entry);
        this.#kernels.set(key, (kernel = { handle: this.api.result(), sharedBytes: PLAIN_DYNAMIC_BYTES }));
      }
      if (sharedBytes > kernel.sharedBytes) {
        this.api.allowSharedBytes(kernel.handle, sharedBytes);
        kernel.sharedBytes = sharedBytes;
      }
    }
  }

  #module(source: string): Promise<bigint> {
    let module = this.#modules.get(source);
    if (!module) {
      module = this.#compiler.compile(source).then((cubin) => {
        this.api.call('cuModuleLoadData', this.api.cell, this.api.address(cubin));
        return this.api.result();
      });
      this.#modules.set(source, module);
    }
    return module;
  }

  /** Puts the steps into a graph. */
  #capture<S>(steps: readonly S[], put: (step: S) => void): bigint {
    const { api, stream } = this;
    api.beginCapture(stream);
    try {
      for (const step of steps) put(step);
    } catch (error) {
      // What failed matters, not that the capture is void.
      api.try('cuStreamEndCapture', stream, api.cell);
      throw error;
    }
    api.call('cuStreamEndCapture', stream, api.cell);
    return api.result();
  }

  /** @throws DEVICE when other ranks are gone; then nothing runs between them any more */
  async #lookAtRanks(): Promise<void> {
    try {
      this.#ranks?.look();
    } catch (error) {
      // Graphs keep the group alive.
      for (const close of this.#shared) close();
      await this.#ranks?.abort(error as MatMambaError);
      throw error;
    }
  }

  #putBetweenRanks(launch: RankLaunch): void {
    if (this.#ranks) return this.#ranks.put(launch);
    for (const { from, to, count } of launch.parts) {
      if (from !== to) this.api.call('cuMemcpyDtoDAsync_v2', to, from, 4 * count, this.stream);
    }
  }

  #put(step: Exclude<CudaLaunch, { kind: 'gemm' }>): void {
    const { api, stream } = this;
    switch (step.kind) {
      case 'kernel':
        return this.#putKernel(step);
      case 'fill':
        return api.call('cuMemsetD8Async', step.pointer, 0, step.bytes, stream);
      case 'join':
        return this.#ranks?.join();
      default:
        return this.#putBetweenRanks(step);
    }
  }

  #putKernel({ source, entry, grid: [x, y = 1, z = 1], block, sharedBytes = 0, args, startsEarly }: KernelLaunch): void {
    const { handle } = this.#kernels.get(`${entry}\n${source}`)!;
    const cells = new BigUint64Array(args.length);
    const words = new DataView(cells.buffer);
    for (const [i, argument] of args.entries()) writeArgument(words, 8 * i, argument);
    const base = this.api.address(cells);
    const pointers = BigUint64Array.from(args, (_, i) => base + BigInt(8 * i));
    const list = args.length > 0 ? this.api.address(pointers) : 0n;
    const status = startsEarly
      ? this.api.try('cuLaunchKernelEx', this.#earlyLaunch([x, y, z], block, sharedBytes), handle, list, 0n)
      : this.api.try('cuLaunchKernel', handle, x, y, z, block, 1, 1, sharedBytes, this.stream, list, 0n);
    if (status !== 0) throw this.api.failure(`cuLaunchKernel of ${entry} (${x} x ${y} x ${z} blocks of ${block})`, status);
  }

  /** A CUlaunchConfig whose one attribute lets the launch start before the one ahead of it is done. */
  #earlyLaunch(grid: readonly [number, number, number], block: number, sharedBytes: number): bigint {
    const { config, attribute } = this.#early;
    attribute.setInt32(0, PROGRAMMATIC_SERIALIZATION, true);
    attribute.setInt32(8, 1, true);
    for (const [i, word] of [...grid, block, 1, 1, sharedBytes].entries()) config.setUint32(4 * i, word, true);
    config.setBigUint64(32, this.stream, true);
    config.setBigUint64(40, this.api.address(attribute), true);
    config.setUint32(48, 1, true);
    return this.api.address(config);
  }

  async #time<S>(steps: readonly S[], put: (step: S) => void): Promise<readonly number[]> {
    const { api, stream } = this;
    const events = Array.from({ length: steps.length + 1 }, () => {
      api.call('cuEventCreate', api.cell, 0);
      return api.result();
    });
    try {
      api.call('cuEventRecord', events[0]!, stream);
      for (const [i, step] of steps.entries()) {
        put(step);
        api.call('cuEventRecord', events[i + 1]!, stream);
      }
      await this.done();
      const ms = new Float32Array(1);
      return steps.map((_, i) => {
        api.call('cuEventElapsedTime', api.address(ms), events[i]!, events[i + 1]!);
        return ms[0]!;
      });
    } finally {
      for (const event of events) api.call('cuEventDestroy_v2', event);
    }
  }
}

function isBetweenRanks(kind: CudaLaunch['kind']): kind is RankLaunch['kind'] {
  return kind === 'all-reduce' || kind === 'reduce' || kind === 'broadcast';
}

function writeArgument(words: DataView, at: number, argument: CudaArgument): void {
  if (typeof argument === 'bigint') words.setBigUint64(at, argument, true);
  else if ('i32' in argument) words.setInt32(at, argument.i32, true);
  else if ('f32' in argument) words.setFloat32(at, argument.f32, true);
  else throw new MatMambaError('INTERNAL', 'a table was not placed in device memory');
}
