/**
 * What the CUDA backend asks of a device: memory, and recordings of copies, kernels and matrix products that are
 * replayed as one. `gpu-driver.ts` answers it with libcuda, NVRTC and cuBLASLt; the tests have an emulator that runs the
 * same kernels on the CPU. One stream: everything happens in the order it was asked for.
 */

import type { RankGroup } from '../../distributed/communicator.ts';
import type { CudaLaunch } from '../../ops/cuda-kernel.ts';

export interface DeviceFacts {
  /** As the driver says it: `NVIDIA H200`. */
  readonly name: string;
  /** `sm_90`. */
  readonly architecture: string;
  readonly multiprocessors: number;
  readonly memoryBytes: number;
  /** Versions of driver and libraries, printable. */
  readonly versions: string;
}

/** Page-locked host memory: device copies from and to it need no staging. */
export interface HostBuffer {
  readonly pointer: bigint;
  readonly bytes: Uint8Array;
  free(): void;
}

/** A copy between a host buffer and device memory. */
export interface HostCopy {
  readonly kind: 'to-device' | 'to-host';
  readonly host: bigint;
  readonly device: bigint;
  readonly bytes: number;
}

/** Launches recorded once (a CUDA graph). */
export interface Recording {
  /** Bytes it holds on the device beside the launches' operands, as far as they are known. */
  readonly bytes: number;
  /** Puts all launches on the stream. */
  replay(): void;
  /** The same; resolves when they are done, with the milliseconds that they took on the device. */
  replayTimed(): Promise<number>;
  /** Runs the launches one by one and says how long each took, ms. */
  time(): Promise<readonly number[]>;
  free(): void;
}

export interface CudaDriver {
  readonly facts: DeviceFacts;
  /** Device memory, 256-byte aligned, not cleared. @throws MEMORY naming what it was for and what is free */
  allocate(bytes: number, what: string): bigint;
  free(pointer: bigint): void;
  hostBuffer(bytes: number): HostBuffer;
  /** After all work asked for so far; these return when the copy is done. */
  copyToDevice(device: bigint, from: Uint8Array): void;
  copyToHost(to: Uint8Array, device: bigint): void;
  /** Asks for a copy from or to a host buffer, in order with all other work; returns at once. */
  copy(copy: HostCopy): void;
  fillZero(device: bigint, bytes: number): void;
  /**
   * Compiles and records; with `tf32` float32 products are TF32 ones.
   * @throws DEVICE with the compiler's or library's words
   */
  record(launches: readonly CudaLaunch[], tf32?: boolean): Promise<Recording>;
  /**
   * Joins the GPUs of a job's other ranks, for launches between them; without it the device is a group of one. Every
   * rank must call it. @throws DEVICE
   */
  joinRanks(group: RankGroup): Promise<void>;
  /** Resolves when all work asked for so far is done. @throws DEVICE when some of it failed, or other ranks will not come */
  done(): Promise<void>;
  /** Whether the device still takes work. */
  works(): boolean;
  /** Products chosen by measuring, by device, library and shape. */
  choices(): Readonly<Record<string, string>>;
  adoptChoices(choices: Readonly<Record<string, string>>): void;
  dispose(): void;
}
