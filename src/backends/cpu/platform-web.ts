/**
 * The CPU backend's surroundings in a browser: kernels fetched from beside this file, module workers where the page may
 * share memory with them. URLs are written out so that bundlers find the files.
 */

import { MatMambaError, messageOf } from '../../errors.ts';
import type { CpuPlatform } from './platform.ts';

const KERNELS = {
  'kernels-relaxed.wasm': new URL('./kernels-relaxed.wasm', import.meta.url),
  'kernels-simd.wasm': new URL('./kernels-simd.wasm', import.meta.url),
};

/** More threads than this wait for memory, and for each other. */
const MOST_THREADS = 16;

/** Messages to the engine, such as aborts, wait no longer than this. */
const MOST_BLOCK_MS = 4;

export const webPlatform: CpuPlatform = {
  alone: whyAlone(),
  blockMs: 'document' in globalThis ? 0 : MOST_BLOCK_MS,

  async defaultThreads() {
    const cores = globalThis.navigator.hardwareConcurrency || 1;
    // One core stays with the page where there are some to spare.
    return Math.min(MOST_THREADS, cores > 3 ? cores - 1 : cores);
  },

  async kernelBytes(name) {
    const url = KERNELS[name];
    try {
      const response = await fetch(url);
      if (!response.ok) throw new Error(`status ${response.status}`);
      return new Uint8Array(await response.arrayBuffer());
    } catch (cause) {
      throw new MatMambaError('NETWORK', `the CPU kernels ${url.href} cannot be fetched: ${messageOf(cause)}`, {
        hint: 'serve the .wasm files beside the scripts',
        cause,
      });
    }
  },

  async enableRelaxedSimd() {},

  async startWorker(start, { onMessage, onEnd }) {
    const worker = new Worker(new URL('./worker-web.js', import.meta.url), {
      type: 'module',
      name: `matmamba-cpu-${start.thread}`,
    });
    worker.addEventListener('message', ({ data }) => onMessage(data as { ready?: number; trap?: string }));
    worker.addEventListener('error', (event) => onEnd(`a worker failed: ${event.message || 'its script cannot be loaded'}`));
    worker.postMessage(start);
    return {
      ref() {},
      unref() {},
      async terminate() {
        worker.terminate();
        onEnd('a worker was ended');
      },
    };
  },
};

function whyAlone(): string | undefined {
  if (typeof Worker === 'undefined') return 'no workers can be started here';
  // Some browsers make shared memories without isolation and then refuse to pass them on.
  if (globalThis.crossOriginIsolated) return undefined;
  return 'the page is not cross-origin isolated (its server sends no COOP and COEP headers), so workers cannot share memory';
}
