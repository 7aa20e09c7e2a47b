/**
 * Loads the kernels: the relaxed-SIMD module where the engine takes it, else the plain one. Engines are asked, never
 * guessed by version; Node 20 takes relaxed SIMD once its V8 flag is set.
 */

import { MatMambaError } from '../../errors.ts';

export interface KernelModule {
  readonly module: WebAssembly.Module;
  readonly simd: 'relaxed' | 'simd128';
  /** Function table index of each kernel. */
  readonly kernels: ReadonlyMap<string, number>;
}

const INDEX_SUFFIX = '_index';

let loading: Promise<KernelModule> | undefined;

/** The compiled module, made once per process. @throws DEVICE */
export function loadKernelModule(): Promise<KernelModule> {
  loading ??= load();
  return loading;
}

async function load(): Promise<KernelModule> {
  const relaxed = await read('kernels-relaxed.wasm');
  if (!WebAssembly.validate(relaxed)) await enableRelaxedSimd();
  if (WebAssembly.validate(relaxed)) return describe(await WebAssembly.compile(relaxed), 'relaxed');
  const plain = await read('kernels-simd.wasm');
  if (WebAssembly.validate(plain)) return describe(await WebAssembly.compile(plain), 'simd128');
  throw new MatMambaError('DEVICE', 'this engine runs no WebAssembly with SIMD and threads', { hint: 'use Node 20.19 or newer' });
}

async function read(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const { readFile } = await import('node:fs/promises');
  const url = new URL(`./${name}`, import.meta.url);
  try {
    return new Uint8Array(await readFile(url));
  } catch (cause) {
    throw new MatMambaError('DEVICE', `the CPU kernels ${name} are missing`, { hint: 'build them: npm run build', cause });
  }
}

async function enableRelaxedSimd(): Promise<void> {
  const { setFlagsFromString } = await import('node:v8');
  setFlagsFromString('--experimental-wasm-relaxed-simd');
}

/** Reads the kernels' indices off an instance that never runs. */
function describe(module: WebAssembly.Module, simd: KernelModule['simd']): KernelModule {
  const never = (): never => {
    throw new Error('not a worker');
  };
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536, shared: true });
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
