/**
 * Loads the kernels: the relaxed-SIMD module where the engine takes it, else the plain one. Engines are asked, never
 * guessed by version; Node 20 takes relaxed SIMD once its V8 flag is set.
 */

import { MatMambaError } from '../../errors.ts';
import { INITIAL_PAGES, MAXIMUM_PAGES } from './heap.ts';
import type { CpuPlatform, KernelFile } from './platform.ts';
import { withUnsharedMemory } from './unshared.ts';

export interface KernelModule {
  readonly module: WebAssembly.Module;
  readonly simd: 'relaxed' | 'simd128';
  /** Function table index of each kernel. */
  readonly kernels: ReadonlyMap<string, number>;
}

const INDEX_SUFFIX = '_index';

const loading = new Map<boolean, Promise<KernelModule>>();

/** The compiled module for memory that is shared or not, made once per process. @throws DEVICE, NETWORK */
export function loadKernelModule(platform: CpuPlatform, shared: boolean): Promise<KernelModule> {
  let made = loading.get(shared);
  if (!made) {
    made = load(platform, shared);
    loading.set(shared, made);
    // A later try may find what was missing.
    made.catch(() => loading.delete(shared));
  }
  return made;
}

async function load(platform: CpuPlatform, shared: boolean): Promise<KernelModule> {
  const read = async (name: KernelFile): Promise<Uint8Array<ArrayBuffer>> => {
    const bytes = await platform.kernelBytes(name);
    return shared ? bytes : withUnsharedMemory(bytes);
  };
  const relaxed = await read('kernels-relaxed.wasm');
  if (!WebAssembly.validate(relaxed)) await platform.enableRelaxedSimd();
  if (WebAssembly.validate(relaxed)) return describe(await WebAssembly.compile(relaxed), 'relaxed', shared);
  const plain = await read('kernels-simd.wasm');
  if (WebAssembly.validate(plain)) return describe(await WebAssembly.compile(plain), 'simd128', shared);
  throw new MatMambaError('DEVICE', 'this engine runs no WebAssembly with SIMD and threads', {
    hint: 'use Node 20.19 or newer, or a browser of 2023 or newer',
  });
}

/** Reads the kernels' indices off an instance that never runs. */
function describe(module: WebAssembly.Module, simd: KernelModule['simd'], shared: boolean): KernelModule {
  const never = (): never => {
    throw new Error('not a worker');
  };
  const memory = new WebAssembly.Memory({ initial: INITIAL_PAGES, maximum: shared ? MAXIMUM_PAGES : INITIAL_PAGES, shared });
  const { exports } = new WebAssembly.Instance(module, {
    env: { memory, abort: never, now: never, sleep: never, blas_sgemm: never, blas_gemm: never },
  });
  const kernels = new Map<string, number>();
  for (const [name, value] of Object.entries(exports)) {
    if (name.endsWith(INDEX_SUFFIX))
      kernels.set(name.slice(0, -INDEX_SUFFIX.length), (value as WebAssembly.Global).value as number);
  }
  return { module, simd, kernels };
}
