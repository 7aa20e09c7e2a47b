/** The CPU backend's surroundings in Node: kernels beside this file, worker threads, a V8 flag for relaxed SIMD. */

import { MatMambaError } from '../../errors.ts';
import { CONTROL } from './control.ts';
import type { CpuPlatform } from './platform.ts';

export const nodePlatform: CpuPlatform = {
  alone: undefined,
  blockMs: 0,

  async defaultThreads() {
    const { availableParallelism } = await import('node:os');
    return availableParallelism();
  },

  async kernelBytes(name) {
    const { readFile } = await import('node:fs/promises');
    try {
      return new Uint8Array(await readFile(new URL(`./${name}`, import.meta.url)));
    } catch (cause) {
      throw new MatMambaError('DEVICE', `the CPU kernels ${name} are missing`, { hint: 'build them: npm run build', cause });
    }
  },

  async enableRelaxedSimd() {
    const { setFlagsFromString } = await import('node:v8');
    setFlagsFromString('--experimental-wasm-relaxed-simd');
  },

  async startWorker(start, { onMessage, onEnd }) {
    const { Worker } = await import('node:worker_threads');
    const worker = new Worker(new URL('./worker.js', import.meta.url), {
      name: `matmamba-cpu-${start.thread}`,
      // Flags of the process, such as --input-type, may forbid a worker to start from a file.
      execArgv: [],
      workerData: { ...start, cells: CONTROL },
    });
    worker.on('message', onMessage);
    worker.on('error', (cause: Error) => onEnd(`a worker thread failed: ${cause.message}`, cause));
    worker.once('exit', (code) => onEnd(`a worker thread ended with exit code ${code}`));
    return worker;
  },
};
