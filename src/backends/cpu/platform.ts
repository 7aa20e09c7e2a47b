/**
 * What the CPU backend needs of where it runs: Node or a browser. Each has a file of its own that is imported when it is
 * asked for, so that a browser bundle holds nothing of Node and the other way round.
 */

import type { BlasLibrary } from './blas.ts';

/** What a worker is started with. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly control: number;
  readonly cells: Readonly<Record<string, number>>;
  readonly thread: number;
  readonly blas: BlasLibrary | null;
}

export interface TeamWorker {
  /** Keeps the process alive, or lets it end. */
  ref(): void;
  unref(): void;
  terminate(): Promise<unknown>;
}

export interface WorkerEvents {
  readonly onMessage: (message: { ready?: number; trap?: string }) => void;
  /** It is gone and will not answer any more. */
  readonly onEnd: (reason: string, cause?: Error) => void;
}

export interface CpuPlatform {
  /** Threads that a team has unless the caller says how many. */
  defaultThreads(): Promise<number>;
  /** Why there can be no team of workers over one shared memory here, if so. */
  readonly alone: string | undefined;
  /**
   * The longest that the thread which asks for runs may block for a program's end: waking it so is faster than by its
   * event loop, and where that thread is a worker of its own nobody minds.
   */
  readonly blockMs: number;
  /** One of the compiled kernel modules. @throws DEVICE, NETWORK */
  kernelBytes(name: KernelFile): Promise<Uint8Array<ArrayBuffer>>;
  /** Turns on relaxed SIMD where that is a setting. */
  enableRelaxedSimd(): Promise<void>;
  startWorker(start: WorkerStart, events: WorkerEvents): Promise<TeamWorker>;
}

export type KernelFile = 'kernels-relaxed.wasm' | 'kernels-simd.wasm';

/** Whether this is Node (or something that takes its place), as opposed to a browser. */
export const ON_NODE = typeof globalThis.process?.versions?.node === 'string';

/** The platform this code runs on. */
export async function hostPlatform(): Promise<CpuPlatform> {
  if (ON_NODE) return (await import('./platform-node.ts')).nodePlatform;
  return (await import('./platform-web.ts')).webPlatform;
}
