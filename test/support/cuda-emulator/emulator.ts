/**
 * A CUDA device on the CPU: runs the kernels' own CUDA C, compiled by g++, one block after another (see runtime.cpp for
 * what it checks), and products as plain loops. For tests; everything is done when a call returns.
 */

import koffi from 'koffi';
import type { CudaDriver, DeviceFacts, HostBuffer, HostCopy, Recording } from '../../../src/backends/cuda/driver.ts';
import type { RankGroup } from '../../../src/distributed/communicator.ts';
import { MatMambaError } from '../../../src/errors.ts';
import type {
  CudaArgument,
  CudaLaunch,
  GemmLaunch,
  GemmOperand,
  KernelLaunch,
  RankLaunch,
} from '../../../src/ops/cuda-kernel.ts';
import { EmulatedRanks } from './ranks.ts';
import { compilerVersion, explain, makeKernels, makeRuntime } from './compile.ts';

export interface EmulatorOptions {
  /** What kernels size their grids by. */
  readonly multiprocessors?: number;
  readonly memoryBytes?: number;
  /**
   * Runs threads in a random order of this seed between barriers; 0: descending. The default is what the environment
   * variable MATMAMBA_CUDA_SHUFFLE says.
   */
  readonly shuffle?: number;
  /** A kernel that runs longer is an error. */
  readonly secondsPerLaunch?: number;
  /** Switches threads by ucontext, as on processors other than x86-64. */
  readonly portable?: boolean;
}

interface Bound {
  error(): string | null;
  allocate(bytes: number): bigint | number;
  free(pointer: bigint): number;
  hostAllocate(bytes: number): bigint | number;
  hostFree(pointer: bigint): void;
  copyIn(device: bigint, from: Uint8Array | bigint, bytes: number): number;
  copyOut(to: Uint8Array | bigint, device: bigint, bytes: number): number;
  zero(device: bigint, bytes: number): number;
  gemm(operands: Uint8Array, m: number, n: number, k: number, batch: number, accumulate: number): number;
  load(path: string): bigint | number;
  parameters(module: bigint, entry: string): string | null;
  launch(module: bigint, entry: string, ...rest: unknown[]): number;
}

const ELEMENTS: Readonly<Record<string, number>> = { f32: 0, bf16: 1, f16: 2 };

/** A launch with what it takes to run it. */
type Step =
  | { readonly kind: 'kernel'; readonly launch: KernelLaunch; readonly module: bigint; readonly args: BigUint64Array }
  | { readonly kind: 'gemm'; readonly launch: GemmLaunch; readonly operands: Uint8Array }
  | { readonly kind: 'fill'; readonly pointer: bigint; readonly bytes: number }
  | RankLaunch
  | { readonly kind: 'join' };

export class EmulatedDriver implements CudaDriver {
  readonly facts: DeviceFacts;
  readonly #bound: Bound;
  readonly #version: string;
  readonly #shuffle: number;
  readonly #seconds: number;
  readonly #allocated = new Map<bigint, number>();
  /** The other devices of a job; undefined for a group of one, whose sums are what they were. */
  #ranks: EmulatedRanks | undefined;
  readonly #asked: (() => void | Promise<void>)[] = [];
  #disposed = false;
  readonly #modules = new Map<string, bigint>();
  /** The first error of the work asked for, with the source to explain it by; `done` throws it. */
  #failure: { readonly words: string; readonly source: string } | undefined;

  private constructor(bound: Bound, version: string, options: EmulatorOptions) {
    this.#bound = bound;
    this.#version = version;
    // oxlint-disable-next-line node/no-process-env -- a switch for test runs
    this.#shuffle = options.shuffle ?? Number(process.env['MATMAMBA_CUDA_SHUFFLE'] ?? 0);
    this.#seconds = options.secondsPerLaunch ?? 120;
    this.facts = {
      name: 'CUDA emulator',
      architecture: 'sm_90',
      multiprocessors: options.multiprocessors ?? 4,
      memoryBytes: options.memoryBytes ?? 4 * 1024 ** 3,
      versions: version,
    };
  }

  /** @throws DEVICE without g++ */
  static async open(options: EmulatorOptions = {}): Promise<EmulatedDriver> {
    const version = await compilerVersion();
    const path = await makeRuntime(version, options.portable ? ['-DEMU_UCONTEXT'] : []);
    return new EmulatedDriver(bind(path), version, options);
  }

  allocate(bytes: number, what: string): bigint {
    const used = [...this.#allocated.values()].reduce((sum, one) => sum + one, 0);
    const free = this.facts.memoryBytes - used;
    const pointer = bytes <= free ? BigInt(this.#bound.allocate(bytes)) : 0n;
    if (pointer === 0n) {
      throw new MatMambaError(
        'MEMORY',
        `no ${bytes} bytes for ${what} on the emulated device: ${free} of ${this.facts.memoryBytes} are free`,
      );
    }
    this.#allocated.set(pointer, bytes);
    return pointer;
  }

  free(pointer: bigint): void {
    if (this.#disposed) return;
    this.#allocated.delete(pointer);
    this.#check(this.#bound.free(pointer));
  }

  hostBuffer(bytes: number): HostBuffer {
    const pointer = BigInt(this.#bound.hostAllocate(bytes));
    if (pointer === 0n) throw new MatMambaError('MEMORY', `no ${bytes} bytes for a host buffer`);
    return {
      pointer,
      bytes: new Uint8Array(koffi.view(pointer, bytes)),
      free: () => this.#bound.hostFree(pointer),
    };
  }

  copyToDevice(device: bigint, from: Uint8Array): void {
    if (from.byteLength > 0) this.#check(this.#bound.copyIn(device, from, from.byteLength));
  }

  copyToHost(to: Uint8Array, device: bigint): void {
    if (to.byteLength > 0) this.#check(this.#bound.copyOut(to, device, to.byteLength));
  }

  copy({ kind, host, device, bytes }: HostCopy): void {
    const bound = this.#bound;
    this.#ask(() => this.#note(kind === 'to-device' ? bound.copyIn(device, host, bytes) : bound.copyOut(host, device, bytes)));
  }

  fillZero(device: bigint, bytes: number): void {
    this.#check(this.#bound.zero(device, bytes));
  }

  async record(launches: readonly CudaLaunch[]): Promise<Recording> {
    await this.#compile(launches.flatMap((one) => (one.kind === 'kernel' ? [one.source] : [])));
    const tables: bigint[] = [];
    let bytes = 0;
    const table = (content: Uint8Array): bigint => {
      const pointer = this.allocate(content.byteLength, 'a constant table');
      this.copyToDevice(pointer, content);
      tables.push(pointer);
      bytes += content.byteLength;
      return pointer;
    };
    const steps = launches.map((launch): Step => {
      if (launch.kind === 'gemm') return { kind: 'gemm', launch, operands: packGemm(launch) };
      if (launch.kind !== 'kernel') return launch;
      const module = this.#modules.get(launch.source)!;
      return { kind: 'kernel', launch, module, args: this.#pack(launch, module, table) };
    });
    return {
      bytes,
      replay: () => {
        for (const step of steps) this.#ask(() => (this.#failure === undefined ? this.#run(step) : undefined));
      },
      replayTimed: async () => {
        const start = performance.now();
        for (const step of steps) this.#ask(() => (this.#failure === undefined ? this.#run(step) : undefined));
        await this.done();
        return performance.now() - start;
      },
      time: async () => {
        const times = steps.map((step) => {
          const start = performance.now();
          if (this.#failure === undefined) void this.#run(step);
          return performance.now() - start;
        });
        await this.done();
        return times;
      },
      free: () => {
        for (const pointer of tables.splice(0)) this.free(pointer);
      },
    };
  }

  choices(): Readonly<Record<string, string>> {
    return {};
  }
  adoptChoices(): void {}

  /** With others, what is asked for waits for `done`, in which the devices meet. */
  async joinRanks(group: RankGroup): Promise<void> {
    await group.barrier();
    const toHost = (to: Uint8Array, device: bigint): void => this.copyToHost(to, device);
    const toDevice = (device: bigint, from: Uint8Array): void => this.copyToDevice(device, from);
    if (group.size > 1) this.#ranks = new EmulatedRanks(group, { toHost, toDevice });
  }

  /** An emulated device goes on after an error. */
  works(): boolean {
    return true;
  }

  async done(): Promise<void> {
    for (const work of this.#asked.splice(0)) await work();
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure) throw new MatMambaError('DEVICE', await explain(failure.words, failure.source));
  }

  /** Gives back all device memory. @throws DEVICE when something was written beside it */
  dispose(): void {
    for (const pointer of this.#allocated.keys()) this.free(pointer);
    this.#disposed = true;
  }

  async #compile(sources: readonly string[]): Promise<void> {
    const missing = [...new Set(sources)].filter((source) => !this.#modules.has(source));
    const paths = await makeKernels(this.#version, missing);
    missing.forEach((source, i) => {
      const module = BigInt(this.#bound.load(paths[i]!));
      this.#check(module === 0n ? 1 : 0);
      this.#modules.set(source, module);
    });
  }

  #pack(launch: KernelLaunch, module: bigint, table: (content: Uint8Array) => bigint): BigUint64Array {
    const parameters = this.#bound.parameters(module, launch.entry);
    if (parameters === null) throw new MatMambaError('DEVICE', `kernel ${launch.entry} is not in its source`);
    const given = launch.args.map(letter).join('');
    if (parameters !== given) {
      throw new MatMambaError(
        'DEVICE',
        `kernel ${launch.entry} has the parameters ${parameters} but is given ${given} (p: 8 bytes, i: 32-bit integer, f: float)`,
      );
    }
    const cells = new DataView(new ArrayBuffer(8 * Math.max(1, given.length)));
    launch.args.forEach((argument, i) => {
      if (typeof argument === 'bigint') cells.setBigUint64(8 * i, argument, true);
      else if ('i32' in argument) cells.setInt32(8 * i, argument.i32, true);
      else if ('f32' in argument) cells.setFloat32(8 * i, argument.f32, true);
      else cells.setBigUint64(8 * i, table(argument.table), true);
    });
    return new BigUint64Array(cells.buffer);
  }

  /** At once, unless other devices have a part in it. */
  #ask(work: () => void | Promise<void>): void {
    if (this.#ranks) this.#asked.push(work);
    else void work();
  }

  #run(step: Step): void | Promise<void> {
    const bound = this.#bound;
    switch (step.kind) {
      case 'kernel': {
        const { entry, grid, block, sharedBytes = 0, source } = step.launch;
        const [x, y = 1, z = 1] = grid;
        const args = step.args;
        const order = [this.#shuffle, this.#seconds];
        this.#note(
          bound.launch(step.module, entry, x, y, z, block, sharedBytes, args, step.launch.args.length, ...order),
          source,
        );
        return;
      }
      case 'gemm': {
        const { m, n, k, batch = 1, accumulate = false } = step.launch;
        this.#note(bound.gemm(step.operands, m, n, k, batch, accumulate ? 1 : 0));
        return;
      }
      case 'fill':
        this.#note(bound.zero(step.pointer, step.bytes));
        return;
      case 'join':
        return this.#ranks?.join();
      default:
        if (this.#ranks) return this.#ranks.add(step);
        for (const { from, to, count } of step.parts) {
          if (from === to) continue;
          const copy = new Uint8Array(4 * count);
          this.#note(bound.copyOut(copy, from, copy.length));
          this.#note(bound.copyIn(to, copy, copy.length));
        }
    }
  }

  #note(status: number, source = ''): void {
    if (status !== 0) this.#failure ??= { words: this.#bound.error() ?? 'unknown error', source };
  }

  #check(status: number): void {
    if (status !== 0) throw new MatMambaError('DEVICE', this.#bound.error() ?? 'unknown error');
  }
}

/** @throws DEVICE without g++ */
export function openEmulator(options: EmulatorOptions = {}): Promise<EmulatedDriver> {
  return EmulatedDriver.open(options);
}

function letter(argument: CudaArgument): string {
  if (typeof argument === 'bigint' || 'table' in argument) return 'p';
  return 'i32' in argument ? 'i' : 'f';
}

/** Operands a, b and d as the runtime's EmuOperand. */
function packGemm(launch: GemmLaunch): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(96));
  [launch.a, launch.b, launch.d].forEach((operand: GemmOperand, i) => {
    const element = ELEMENTS[operand.element];
    if (element === undefined) throw new MatMambaError('DEVICE', `products take no ${operand.element}`);
    bytes.setBigUint64(32 * i, operand.pointer, true);
    bytes.setBigInt64(32 * i + 8, BigInt(operand.stride), true);
    bytes.setBigInt64(32 * i + 16, BigInt(operand.batchStride ?? 0), true);
    bytes.setInt32(32 * i + 24, element, true);
    bytes.setInt32(32 * i + 28, operand.transposed ? 1 : 0, true);
  });
  return new Uint8Array(bytes.buffer);
}

function bind(path: string): Bound {
  const library = koffi.load(path);
  const f = (declaration: string): never => library.func(declaration) as never;
  const copyIn = f('int emu_copy_in(uint64_t, const void *, uint64_t)');
  const copyOut = f('int emu_copy_out(void *, uint64_t, uint64_t)');
  return {
    error: f('const char *emu_error()'),
    allocate: f('uint64_t emu_allocate(uint64_t)'),
    free: f('int emu_free(uint64_t)'),
    hostAllocate: f('uint64_t emu_host_allocate(uint64_t)'),
    hostFree: f('void emu_host_free(uint64_t)'),
    copyIn,
    copyOut,
    zero: f('int emu_zero(uint64_t, uint64_t)'),
    gemm: f('int emu_gemm(const uint8_t *, int64_t, int64_t, int64_t, int64_t, int)'),
    load: f('uint64_t emu_load(const char *)'),
    parameters: f('const char *emu_parameters(uint64_t, const char *)'),
    launch: f(
      'int emu_launch(uint64_t, const char *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint64_t *, uint32_t, uint32_t, double)',
    ),
  };
}
